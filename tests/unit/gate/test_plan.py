"""The files of the image say what the plan says, and nothing on the box needs a shell."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from omamori_agent.gate.gate import DEFAULT_PIN_DIRECTORY
from omamori_agent.gate.wire import BRIDGE_SETTINGS
from omamori_firmware.dataplane import PLAN, box
from omamori_firmware.dataplane.engine import (
    BOX_CACHE,
    BOX_CONFIGURATION,
    BOX_FEED,
    BOX_RUN,
    adapt_configuration,
)
from omamori_firmware.dataplane.native import queue_rules
from omamori_firmware.recipe import source_tree
from omamori_firmware.rootfs import board_environment
from omamori_hw.board import load_board
from omamori_protocol.feed_manifest import FeedManifest

TREE = source_tree()
ENGINE = (TREE.engine / "suricata.yaml").read_text()


def test_committed_wire_files_are_the_rendered_ones() -> None:
    files = {path.name: path.read_text() for path in TREE.wire.iterdir()}
    assert files == box.render(PLAN)


def test_agent_reads_back_exactly_the_planned_settings() -> None:
    assert PLAN.settings == BRIDGE_SETTINGS
    assert Path(PLAN.pin_directory) == DEFAULT_PIN_DIRECTORY
    loader = (TREE.gate / "wire.h").read_text()
    assert re.findall(r'"(bridge-nf-[a-z0-9-]+)"', loader) == list(PLAN.settings)


@pytest.mark.parametrize(
    "unit", ["wire/omamori-wire", "wire/omamori-watch", "wire/omamori-herald", "engine/omamori-engine"]
)
def test_unit_starts_programs_directly(unit: str) -> None:
    text = (TREE.top / "firmware" / f"{unit}.service").read_text()
    lines = re.findall(r"^Exec\w+=(.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        assert re.match(r"[+-]*/usr/", line)
        assert not re.search(r"\b(sh|bash)\b|/env\b|[|;&`]|\$\(", line)


def test_watch_and_engine_agree_about_the_queues() -> None:
    watch = box.render(PLAN)["omamori-watch.service"]
    assert f"--queues {PLAN.first_queue}-{PLAN.last_queue} --queue-length {PLAN.queue_length}" in watch
    (pending,) = re.findall(r"^max-pending-packets: (\d+)$", ENGINE, re.MULTILINE)
    assert PLAN.queue_length == 4 * int(pending)
    assert (TREE.engine / PLAN.engine_unit).is_file()


def test_board_tells_the_watch_its_button() -> None:
    board = load_board(TREE.boards / "x86_64-uefi")
    lines = dict(line.split("=", 1) for line in board_environment(board).splitlines())
    watch = box.render(PLAN)["omamori-watch.service"]
    for name in set(re.findall(r"\$\{?(BUTTON[A-Z_]*)", watch)):
        assert name in lines
    assert lines["BUTTON"] == '"Power Button"'
    assert set(board.button.modules) <= set(board.modules.root)


def test_board_tells_the_herald_its_supervisor() -> None:
    board = load_board(TREE.boards / "x86_64-uefi")
    assert board.supervisor is not None
    herald = box.render(PLAN)["omamori-herald.service"]
    lines = dict(line.split("=", 1) for line in board_environment(board).splitlines())
    for name in set(re.findall(r"\$\{?(SUPERVISOR[A-Z_]*)", herald)):
        assert name in lines
    assert lines["SUPERVISOR"] == board.supervisor.device
    without = board_environment(dataclasses.replace(board, supervisor=None))
    assert "SUPERVISOR=\n" in without
    # Without a supervisor every other setting of the unit's command is its own default.
    assert set(re.findall(r"(SUPERVISOR[A-Z_]*)=", herald)) >= {name for name in lines if "SUPERVISOR" in name}


def test_failed_step_of_the_wire_never_keeps_the_next_from_being_tried() -> None:
    steps = re.findall(r"^ExecStart=(.*)$", box.render(PLAN)["omamori-wire.service"], re.MULTILINE)
    working = [step for step in steps if not re.search(r" check | list ", step)]
    assert working
    assert all(step.startswith("-") for step in working)


def test_queue_has_bypass_and_no_fanout_in_both_forms() -> None:
    nft = next(line for line in box.render(PLAN)["wire.nft"].splitlines() if " queue flags " in line)
    assert "bypass" in nft
    assert "fanout" not in nft
    assert f"to {PLAN.first_queue}-{PLAN.last_queue}" in nft
    iptables = queue_rules(PLAN)
    assert f"--queue-balance {PLAN.first_queue}:{PLAN.last_queue} --queue-bypass" in iptables
    assert "fanout" not in iptables


def test_marks_are_the_gate_s_and_differ() -> None:
    header = (TREE.gate / "omamori_gate.h").read_text()
    marks = {
        name: int(value, 16) for name, value in re.findall(r"#define OMAMORI_MARK_([A-Z]+) 0x([0-9a-f]+)u", header)
    }
    planned = {
        "BYPASS": PLAN.mark_bypass,
        "SKIP": PLAN.mark_skip,
        "INSPECTED": PLAN.mark_inspected,
        "WAITING": PLAN.mark_waiting,
    }
    assert marks == planned
    assert sorted(planned.values()) == [1, 2, 4, 8]


def test_both_forms_mark_before_the_queue_and_inspected_after_it() -> None:
    waiting, inspected = PLAN.mark_waiting, PLAN.mark_inspected
    nft = box.render(PLAN)["wire.nft"]
    steps = [f"{waiting:#x} != 0x0 goto passed", f"mark | {waiting:#x}\n", "queue flags"]
    assert sorted(steps, key=nft.index) == steps
    assert f"& {0xFFFFFFFF & ~waiting:#x} | {inspected:#x} accept" in nft
    iptables = queue_rules(PLAN)
    order = [f"{waiting:#x}/{waiting:#x} -j PASSED", f"--set-xmark {waiting:#x}/{waiting:#x}", "-j NFQUEUE"]
    assert sorted(order, key=iptables.index) == order
    assert f"--set-xmark {inspected:#x}/{waiting | inspected:#x}" in iptables


def test_own_traffic_is_queued_except_on_the_loopback() -> None:
    nft = box.render(PLAN)["wire.nft"]
    assert f'oifname "{PLAN.bridge}" jump inspect' in nft
    assert f'iifname "{PLAN.bridge}" meta pkttype host jump inspect' in nft
    assert nft.count("jump inspect") == 3
    assert f"-A OUTPUT -o {PLAN.bridge} -j INSPECT" in queue_rules(PLAN)


def test_the_initrd_forwards_the_planned_group_addresses() -> None:
    init = (TREE.recipe / "initrd" / "init").read_text()
    assert f"echo {PLAN.group_forward_mask:#x} >/sys/class/net/{PLAN.bridge}/bridge/group_fwd_mask" in init


def test_engine_marks_what_the_gate_learns_and_listens_to_every_queue() -> None:
    rules = [line for line in (TREE.engine / "bulk.rules").read_text().splitlines() if not line.startswith("#")]
    marking = [rule for rule in rules if "nfq_set_mark" in rule]
    assert marking
    assert marking == [rule for rule in rules if " bypass;" in rule]
    assert all(
        f"nfq_set_mark:{PLAN.mark_bypass:#x}/{PLAN.mark_bypass:#x}; bypass; noalert;" in rule for rule in marking
    )
    # Without the repeat mark in the mask, the engine would take every packet for one it has seen.
    assert "  mode: repeat\n" in ENGINE
    assert f"repeat-mark: {PLAN.mark_inspected}\n" in ENGINE
    assert f"repeat-mask: {PLAN.mark_inspected}\n" in ENGINE
    unit = (TREE.engine / "omamori-engine.service").read_text()
    numbers = [int(number) for number in re.findall(r" -q (\d+)", unit)]
    assert numbers == list(range(PLAN.first_queue, PLAN.last_queue + 1))


def test_engine_ends_no_flow_by_itself_and_forgets_at_once_which_ones_it_has_ended() -> None:
    settings = "\n".join(line for line in ENGINE.splitlines() if not line.lstrip().startswith("#"))
    assert "bypass-mark" not in settings
    assert re.findall(r"^  bypass: (\S+)$", settings, re.MULTILINE) == ["no"]
    assert set(re.findall(r"^      encryption-handling: (\S+)$", settings, re.MULTILINE)) == {"full"}
    assert set(re.findall(r"^    (?:emergency-)?bypassed: (\S+)$", settings, re.MULTILINE)) == {"1"}


def test_engine_never_drops_because_it_is_in_trouble() -> None:
    policies = re.findall(r"^\s*([a-z-]*policy): (\S+)$", ENGINE, re.MULTILINE)
    named = [(name, value) for name, value in policies if name != "policy"]
    assert len(named) >= 7
    assert {value for name, value in named if name != "oob-limit-policy"} == {"ignore"}
    assert "fail-open: yes" in ENGINE


def test_engine_configuration_names_only_directories_that_can_be_replaced() -> None:
    places = {BOX_CONFIGURATION: Path("/x/c"), BOX_FEED: Path("/x/f"), BOX_RUN: Path("/x/r"), BOX_CACHE: Path("/x/k")}
    body = "\n".join(line for line in ENGINE.splitlines() if not line.lstrip().startswith("#"))
    left = set(re.findall(r"[\s:](/[a-z][^\s\"]*)", adapt_configuration(body, places)))
    assert left
    assert all(path.startswith("/x/") for path in left)


def test_empty_feed_is_complete_and_canonical() -> None:
    feed = TREE.engine / "feed-empty"
    expected = FeedManifest(
        serial=0, created="2026-01-01T00:00:00Z", channel="demo", engine_min="8.0.0", files=(), lists=(), rules=()
    )
    assert (feed / "manifest.json").read_bytes() == expected.to_json()
    assert (feed / "engine" / "all.rules").read_bytes() == b""
    assert "datasets: {}" in (feed / "engine" / "datasets.yaml").read_text()
