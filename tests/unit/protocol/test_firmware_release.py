"""The release record: what a box accepts, and every rule of it broken once."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import firmware_release as fr
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError, UnknownVersionError
from omamori_protocol.firmware_release import (
    FileDigest,
    FirmwareRelease,
    Importance,
    Payload,
    PayloadKind,
    index_target,
    parse_custom,
    parse_release,
)

BOARD = "x86_64-uefi"
DIGEST = FileDigest(sha256="a" * 64, length=7)


def delta(base: str, length: int = 5) -> Payload:
    return Payload(kind=PayloadKind.DELTA, base=base, path=index_target(BOARD, "1.2.3", base), length=length)


FULL = Payload(kind=PayloadKind.FULL, base="", path=index_target(BOARD, "1.2.3"), length=900)
RELEASE = FirmwareRelease(
    board=BOARD,
    version="1.2.3",
    security_epoch=2,
    importance=Importance.SCHEDULED,
    min_from="1.0.0",
    bundle=FileDigest(sha256="b" * 64, length=1000),
    payloads=(FULL, delta("1.2.2"), delta("1.2.1")),
    notes=(("ja", DIGEST), ("en", DIGEST)),
    sbom=DIGEST,
    provenance=DIGEST,
    released_s=1_790_000_000,
)


def test_record_survives_and_is_canonical() -> None:
    data = RELEASE.to_json()
    assert parse_release(data) == RELEASE
    assert parse_custom(RELEASE.to_custom()) == RELEASE
    assert json.loads(data)["payloads"][1]["path"] == f"firmware/{BOARD}/1.2.3/from-1.2.2.index"
    for changed in (data + b" ", data[:-1], b" " + data, json.dumps(json.loads(data)).encode()):
        with pytest.raises(MalformedError):
            parse_release(changed)


def test_record_answers_what_a_box_asks() -> None:
    assert RELEASE.full is FULL
    assert RELEASE.delta_from("1.2.2") == delta("1.2.2")
    assert RELEASE.delta_from("1.2.0") is None
    assert not RELEASE.is_reachable_from("0.9.9")
    assert RELEASE.is_reachable_from("1.0.0")
    assert RELEASE.is_reachable_from("1.10.0")


def test_targets_follow_from_board_and_version() -> None:
    assert fr.release_target(BOARD, "1.2.3") == "firmware/x86_64-uefi/1.2.3/release.json"
    assert fr.payload_target(BOARD, "1.2.3") == "firmware/x86_64-uefi/1.2.3/full.payload"
    assert fr.payload_target(BOARD, "1.2.3", "1.2.2") == "firmware/x86_64-uefi/1.2.3/from-1.2.2.payload"
    assert fr.attachment_target(BOARD, "1.2.3", "sbom.json") == "firmware/x86_64-uefi/1.2.3/sbom.json"
    assert fr.compatible(BOARD) == "omamori-x86_64-uefi"
    for bad in ("", "../x", "A", "x" * 33, "a/b"):
        with pytest.raises(MalformedError):
            fr.release_target(bad, "1.2.3")


def changed(path: str, value: Any) -> dict[str, Any]:
    body: Any = copy.deepcopy(RELEASE.to_custom())
    *way, last = path.split(".")
    item = body
    for step in way:
        item = item[int(step)] if isinstance(item, list) else item[step]
    item[int(last) if isinstance(item, list) else last] = value
    assert isinstance(body, dict)
    return body


DELTA_ITEM = RELEASE.to_custom()["payloads"][1]


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("format", 2, UnknownVersionError),
        ("format", True, UnknownVersionError),
        ("format", "1", UnknownVersionError),
        ("board", "../etc", MalformedError),
        ("board", "other", MalformedError),  # the paths name another one
        ("board", 5, MalformedError),
        ("version", "1.2", MalformedError),
        ("version", "1.2.4", MalformedError),
        ("security_epoch", -1, MalformedError),
        ("security_epoch", True, MalformedError),
        ("security_epoch", 1.0, MalformedError),
        ("security_epoch", fr.MAX_EPOCH + 1, OversizeError),
        ("importance", "urgent", MalformedError),
        ("importance", [], MalformedError),
        ("min_from", "1.2.3", MalformedError),
        ("min_from", None, MalformedError),
        ("bundle", {}, MalformedError),
        ("bundle.sha256", "A" * 64, MalformedError),
        ("bundle.sha256", "a" * 63, MalformedError),
        ("bundle.sha256", 1, MalformedError),
        ("bundle.length", 0, MalformedError),
        ("bundle.length", fr.MAX_BUNDLE_BYTES + 1, OversizeError),
        ("bundle.more", 1, MalformedError),
        ("payloads", [], MalformedError),
        ("payloads", {}, MalformedError),
        ("payloads", [DELTA_ITEM], MalformedError),
        ("payloads.0.kind", "delta", MalformedError),
        ("payloads.0.from", "1.2.2", MalformedError),
        ("payloads.1.kind", "full", MalformedError),
        ("payloads.1.from", "1.2.3", MalformedError),
        ("payloads.1.from", "1.2.1", MalformedError),
        ("payloads.1.path", "firmware/x86_64-uefi/1.2.3/full.index", MalformedError),
        ("payloads.2.length", fr.MAX_PAYLOAD_BYTES + 1, OversizeError),
        ("payloads.2", DELTA_ITEM, MalformedError),
        ("payloads.2", "full", MalformedError),
        ("notes", {"ja": RELEASE.to_custom()["sbom"]}, MalformedError),
        ("notes.en.length", fr.MAX_NOTES_BYTES + 1, OversizeError),
        ("sbom.length", fr.MAX_ATTACHMENT_BYTES + 1, OversizeError),
        ("provenance.length", fr.MAX_ATTACHMENT_BYTES + 1, OversizeError),
        ("released_s", fr.MAX_TIME_S + 1, OversizeError),
        ("more", 1, MalformedError),
    ],
)
def test_a_broken_rule_is_refused(path: str, value: Any, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        parse_custom(changed(path, value))


def test_a_missing_key_is_refused() -> None:
    for key in RELEASE.to_custom():
        body = RELEASE.to_custom()
        del body[key]
        with pytest.raises(ProtocolError):
            parse_custom(body)


def test_one_payload_too_many_is_refused() -> None:
    body = RELEASE.to_custom()
    body["payloads"] = body["payloads"][:1] + [
        {**DELTA_ITEM, "from": f"0.0.{number}", "path": index_target(BOARD, "1.2.3", f"0.0.{number}")}
        for number in range(fr.MAX_PAYLOADS)
    ]
    with pytest.raises(OversizeError):
        parse_custom(body)
    body["payloads"].pop()
    assert len(parse_custom(body).payloads) == fr.MAX_PAYLOADS


def test_one_byte_too_many_is_refused_unread() -> None:
    with pytest.raises(OversizeError):
        parse_release(b" " * (fr.MAX_RECORD_BYTES + 1))
    for data in (b"", b"[" * 20000, b"\xff", b"null", b"[]"):
        with pytest.raises(ProtocolError):
            parse_release(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_json_is_refused_in_order(value: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_release(json.dumps(value).encode()[: fr.MAX_RECORD_BYTES])
    for key in ("board", "payloads", "notes", "bundle", "released_s"):
        with pytest.raises(ProtocolError):
            parse_custom(RELEASE.to_custom() | {key: {"no": value}})
