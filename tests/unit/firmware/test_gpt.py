"""Partition tables: what other tools must be able to read."""

import struct
import uuid
import zlib

import pytest

from omamori_firmware import gpt
from omamori_firmware.disk import guid, layout, slot_guids
from omamori_firmware.recipe import source_tree
from omamori_hw.board import load_board

KIND, OWN, DISK = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
SIZE = 16 * gpt.MIB


def test_header_and_copy_agree() -> None:
    head, tail = gpt.tables(gpt.lay_out([("data", KIND, OWN, 4)]), DISK, SIZE)
    assert head[510:512] == b"\x55\xaa"
    assert head[450] == 0xEE
    first, last = head[512:1024], tail[-512:]
    for header, own, other in ((first, 1, SIZE // 512 - 1), (last, SIZE // 512 - 1, 1)):
        assert header[:8] == b"EFI PART"
        crc = struct.unpack_from("<I", header, 16)[0]
        assert zlib.crc32(header[:16] + bytes(4) + header[20:92]) == crc
        assert struct.unpack_from("<QQ", header, 24) == (own, other)
    assert head[1024:] == tail[:-512]
    assert struct.unpack_from("<I", first, 88)[0] == zlib.crc32(head[1024:])


def test_an_entry_holds_type_identifier_place_and_name() -> None:
    head, _ = gpt.tables(gpt.lay_out([("root_a", KIND, OWN, 4)]), DISK, SIZE)
    entry = head[1024 : 1024 + 128]
    assert uuid.UUID(bytes_le=entry[:16]) == KIND
    assert uuid.UUID(bytes_le=entry[16:32]) == OWN
    assert struct.unpack_from("<QQ", entry, 32) == (2048, 2048 + 4 * 2048 - 1)
    assert entry[56:].decode("utf-16-le").rstrip("\0") == "root_a"


@pytest.mark.parametrize(
    "partitions",
    [
        [gpt.Partition("a", KIND, OWN, 0, 512)],
        [gpt.Partition("a", KIND, OWN, gpt.MIB, 2 * gpt.MIB), gpt.Partition("b", KIND, OWN, 2 * gpt.MIB, gpt.MIB)],
        [gpt.Partition("a", KIND, OWN, gpt.MIB, SIZE)],
        [gpt.Partition("a" * 37, KIND, OWN, gpt.MIB, gpt.MIB)],
        [gpt.Partition("a", KIND, OWN, gpt.MIB + 1, gpt.MIB)],
    ],
)
def test_a_table_that_cannot_be(partitions: list[gpt.Partition]) -> None:
    with pytest.raises(ValueError, match="partition"):
        gpt.tables(partitions, DISK, SIZE)


def test_the_disk_of_the_board_has_both_slots_and_fixed_identifiers() -> None:
    sizes = load_board(source_tree().boards / "x86_64-uefi").disk
    partitions = layout(sizes)
    names = ["slot_a", "slot_b", "root_a", "verity_a", "root_b", "verity_b", "data"]
    assert [partition.name for partition in partitions] == names
    assert len({partition.guid for partition in partitions}) == len(names)
    assert slot_guids() == {"A": str(partitions[0].guid), "B": str(partitions[1].guid)}
    gpt.tables(partitions, guid("disk"), sizes.total_mib * gpt.MIB)
