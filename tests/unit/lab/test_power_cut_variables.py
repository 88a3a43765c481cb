"""What a firmware finds among its variables after each single byte that it wrote."""

from __future__ import annotations

import pytest

from omamori_lab.errors import LabError
from omamori_lab.power_cut.variables import GLOBAL, MAX_VARIABLES, Recovery, Variable, read_variables
from sim.variable_flash import VariableFlash


def test_each_byte_of_a_change_leaves_the_old_or_the_new_one() -> None:
    flash = VariableFlash()
    flash.set("Boot0003", b"entry")
    flash.set("BootOrder", b"\x01\x00")
    seen = []

    def look(_offset: int, _data: bytes) -> None:
        store = read_variables(flash.data)
        assert store.entry(3) == b"entry"
        if [store.boot_order()] != seen[-1:]:
            seen.append(store.boot_order())

    flash.written = look
    flash.set("BootOrder", b"\x03\x00\x01\x00")
    assert seen == [[1], [3, 1]]


def test_each_byte_of_a_new_variable_leaves_none_or_all_of_it() -> None:
    flash = VariableFlash()
    seen = set()
    flash.written = lambda _offset, _data: seen.add(read_variables(flash.data).boot_next())
    flash.set("BootNext", b"\x03\x00")
    assert seen == {None, 3}
    flash.remove("BootNext")
    assert read_variables(flash.data).boot_next() is None


def test_a_deleted_variable_is_gone_and_comes_again() -> None:
    flash = VariableFlash()
    for value in (b"\x01\x00", b"\x02\x00"):
        flash.set("BootNext", value)
        flash.remove("BootNext")
    flash.set("BootNext", b"\x03\x00")
    assert read_variables(flash.data).variables == {(GLOBAL, "BootNext"): Variable(7, b"\x03\x00")}


def test_an_interrupted_rewrite_ends_with_the_old_or_the_new_store() -> None:
    flash, fresh = VariableFlash(), VariableFlash()
    flash.set("BootOrder", b"\x01\x00")
    fresh.set("BootOrder", b"\x02\x00")

    def state() -> tuple[Recovery, list[int]]:
        store = read_variables(flash.data)
        return store.recovery, store.boot_order()

    flash.begin_rewrite()
    assert state() == (Recovery.ABANDONED, [1])
    flash.fill_spare(bytes(fresh.data[: flash.layout.store]))
    assert state() == (Recovery.ABANDONED, [1])
    flash.mark_spare()
    assert state() == (Recovery.FINISHED, [2])
    flash.data[: flash.layout.store] = b"\xff" * flash.layout.store  # erased, and the power goes
    assert state() == (Recovery.FINISHED, [2])
    flash.data[: flash.layout.store] = fresh.data[: flash.layout.store]
    flash.mark_arrived()
    assert state() == (Recovery.NONE, [2])


def test_a_store_that_is_none_is_told() -> None:
    flash = VariableFlash()
    flash.set("BootOrder", b"\x01\x00")
    broken = bytearray(flash.data)
    broken[40] ^= 1
    with pytest.raises(LabError, match="volume"):
        read_variables(broken)
    broken = bytearray(flash.data)
    broken[0x48] ^= 1
    with pytest.raises(LabError, match="store's header"):
        read_variables(broken)


def test_a_variable_that_reaches_beyond_the_store_is_told() -> None:
    flash = VariableFlash()
    flash.set("BootOrder", b"\x01\x00")
    at = 0x48 + 28
    flash.data[at + 40 : at + 44] = (0x7FFFFFFF).to_bytes(4, "little")
    with pytest.raises(LabError, match="beyond the store"):
        read_variables(flash.data)


def test_one_variable_twice_is_told() -> None:
    flash = VariableFlash()
    flash.set("BootOrder", b"\x01\x00")
    flash._places.clear()
    flash.set("BootOrder", b"\x02\x00")
    with pytest.raises(LabError, match="twice"):
        read_variables(flash.data)


def test_more_variables_than_a_firmware_has_are_told() -> None:
    flash = VariableFlash()
    at = 0x48 + 28
    for number in range(MAX_VARIABLES + 1):
        flash.data[at + 60 * number : at + 60 * number + 60] = b"\xaa\x55\x3c" + bytes(57)
    with pytest.raises(LabError, match="beyond the store"):
        read_variables(flash.data)
