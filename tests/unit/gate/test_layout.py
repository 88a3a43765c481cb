"""The agent's mirror of the gate's header says what the compiler says."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from omamori_agent.gate import layout
from omamori_firmware.dataplane import PLAN
from omamori_firmware.run import run

GATE = Path(__file__).resolve().parents[3] / "firmware" / "gate"

# structure of the header -> layout of the mirror, names of the members it reads, in order
STRUCTURES = {
    "omamori_config": (
        layout.CONFIG,
        ["abi", "flags", "wan_ifindex", "lan_ifindex", "udp_idle_ns", "tcp_idle_ns", "station_idle_ns", "own_mac"],
    ),
    "omamori_port": (layout.PORT, ["role", "index"]),
    "omamori_block_key": (layout.BLOCK_KEY, ["prefixlen", "addr"]),
    "omamori_block": (layout.BLOCK, ["generation", "list_id"]),
    "omamori_blocked_key": (layout.BLOCKED_KEY, ["src", "dst", "dport", "proto", "direction"]),
    "omamori_blocked": (
        layout.BLOCKED,
        ["packets", "bytes", "first_ns", "last_ns", "mac", "sport", "list_id"],
    ),
    "omamori_terminal_key": (layout.TERMINAL_KEY, ["addr"]),
    "omamori_terminal": (
        layout.TERMINAL,
        [
            *("mac", "ifindex", "first_ns", "last_ns", "tx_packets", "tx_bytes"),
            *("rx_packets", "rx_bytes", "bypassed_tx_bytes", "bypassed_rx_bytes"),
        ],
    ),
    "omamori_flow_key": (
        layout.FLOW_KEY,
        ["a", "b", "aport", "bport", "vlan", "inner_vlan", "session", "proto", "tunnel"],
    ),
    "omamori_flow": (
        layout.FLOW,
        ["learned_ns", "last_ns", "in_packets", "in_bytes", "out_packets", "out_bytes", "epoch"],
    ),
    "omamori_exempt": (layout.EXEMPT, ["kind", "id"]),
    "omamori_exempt_mac_key": (layout.EXEMPT_MAC_KEY, ["mac"]),
    "omamori_exempt_mac": (layout.EXEMPT_MAC, ["id"]),
    "omamori_station_key": (layout.STATION_KEY, ["mac", "vlan"]),
    "omamori_station": (layout.STATION, ["ifindex", "last_ns"]),
    "omamori_count": (layout.COUNT, ["packets", "bytes"]),
}
NUMBERS = {
    "OMAMORI_GATE_ABI": layout.ABI,
    "OMAMORI_MARK_MASK": layout.MARKS_DECIDED,
    "OMAMORI_MARK_OURS": sum(layout.Mark),
    **{f"OMAMORI_MARK_{mark.name}": mark for mark in layout.Mark},
    "OMAMORI_MAX_EXEMPT": layout.MAX_EXEMPT,
    "OMAMORI_MAX_EXEMPT_MAC": layout.MAX_EXEMPT_MAC,
    "OMAMORI_MAX_STATIONS": layout.MAX_STATIONS,
    "OMAMORI_CONTROL_SLOTS": layout.CONTROL_SLOTS,
    "OMAMORI_UNINSPECTED_SLOTS": layout.UNINSPECTED_SLOTS,
    "OMAMORI_MAX_PORTS": layout.MAX_PORTS,
    "OMAMORI_MAX_BLOCK": layout.MAX_BLOCK,
    "OMAMORI_MAX_BLOCKED": layout.MAX_BLOCKED,
    "OMAMORI_MAX_TERMINALS": layout.MAX_TERMINALS,
    "OMAMORI_MAX_FLOWS": layout.MAX_FLOWS,
    "OMAMORI_ROLE_WAN": layout.Role.WAN,
    "OMAMORI_ROLE_LAN": layout.Role.LAN,
    "OMAMORI_DIRECTION_IN": layout.PacketDirection.IN,
    "OMAMORI_DIRECTION_OUT": layout.PacketDirection.OUT,
    **{f"OMAMORI_CONFIG_{flag.name}": flag for flag in layout.ConfigFlag},
    **{f"OMAMORI_COUNTER_{counter.name}": counter for counter in layout.Counter},
    "OMAMORI_COUNTER_COUNT": len(layout.Counter),
    **{f"OMAMORI_CONTROL_{slot.name}": slot for slot in layout.ControlSlot},
    **{f"OMAMORI_UNINSPECTED_{reason.name}": reason for reason in layout.Uninspected},
    **{f"OMAMORI_EXEMPT_{kind.name}": kind for kind in layout.ExemptKind},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int | str]:
    """Sizes, offsets, numbers and names, as the C compiler sees them."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    lines = ['#include <stddef.h>\n#include <stdio.h>\n#include "omamori_gate.h"\nint main(void){printf("{");']
    for structure, (_, members) in STRUCTURES.items():
        lines.append(f'printf("\\"{structure}\\":%zu,", sizeof(struct {structure}));')
        lines += [
            f'printf("\\"{structure}.{member}\\":%zu,", offsetof(struct {structure}, {member}));' for member in members
        ]
    lines += [f'printf("\\"{name}\\":%u,", (unsigned)({name}));' for name in NUMBERS]
    lines += [f'printf("\\"OMAMORI_MAP_{name.name}\\":\\"%s\\",", OMAMORI_MAP_{name.name});' for name in layout.MapName]
    lines.append('printf("\\"end\\":0}");return 0;}')
    directory = tmp_path_factory.mktemp("layout")
    (directory / "print.c").write_text("\n".join(lines))
    run(
        ["gcc", "-I", GATE, "-Wall", "-Werror", "-o", directory / "print", directory / "print.c"],
        timeout_s=60,
    )
    printed = run([directory / "print"], timeout_s=10)
    result: dict[str, int | str] = json.loads(printed)
    return result


def offsets(form: struct.Struct) -> list[int]:
    """Return where each member of a struct format starts."""
    found, at = [], 0
    text = form.format.lstrip("=")
    number = ""
    for letter in text:
        if letter.isdigit():
            number += letter
            continue
        size = struct.calcsize(f"={number}{letter}")
        if letter == "x":
            pass
        elif letter == "s":
            found.append(at)
        else:
            found += [at + index * struct.calcsize(f"={letter}") for index in range(int(number or 1))]
        at += size
        number = ""
    return found


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structure_has_the_size_and_offsets_of_the_header(compiled: dict[str, int | str], structure: str) -> None:
    form, members = STRUCTURES[structure]
    assert form.size == compiled[structure]
    assert offsets(form) == [compiled[f"{structure}.{member}"] for member in members]


@pytest.mark.parametrize("name", NUMBERS)
def test_number_is_the_header_s(compiled: dict[str, int | str], name: str) -> None:
    assert compiled[name] == NUMBERS[name]


def test_map_names_are_the_header_s(compiled: dict[str, int | str]) -> None:
    assert {name.value for name in layout.MapName} == {compiled[f"OMAMORI_MAP_{name.name}"] for name in layout.MapName}


def test_plan_uses_the_gate_s_marks() -> None:
    assert PLAN.mark_bypass == layout.Mark.BYPASS
    assert PLAN.mark_skip == layout.Mark.SKIP
