"""Lists in bulk: what is refused, and that a difference is exactly the difference."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.feed.errors import PackRefusedError
from omamori_agent.feed.lists import changes, check_networks, write_dataset, write_digests
from omamori_protocol import feed_lines
from omamori_protocol.feed_manifest import ListKind

NAMES = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789-._", min_size=1, max_size=30), unique=True, max_size=60)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_domains_in_the_engines_form(tmp_path: Path) -> None:
    source = write(tmp_path / "source", ["a.test", "b.test", "xn--p8j9a0d.test"])
    write_dataset(source, tmp_path / "target", name="x", count=3)
    lines = (tmp_path / "target").read_bytes().splitlines()
    assert [base64.b64decode(line) for line in lines] == [b"a.test", b"b.test", b"xn--p8j9a0d.test"]


def test_long_list_spans_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_lines, "BLOCK_BYTES", 300)
    names = sorted(f"host{number}.test" for number in range(500))
    write_dataset(write(tmp_path / "source", names), tmp_path / "target", name="x", count=500)
    lines = (tmp_path / "target").read_bytes().splitlines()
    assert [base64.b64decode(line).decode() for line in lines] == names


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"b.test\na.test\n", "not sorted"),
        (b"a.test\na.test\n", "twice"),
        (b"A.test\nb.test\n", "not allowed"),
        (b"a.test\r\nb.test\n", "not allowed"),
        (b"a test\nb.test\n", "not allowed"),
        (b"a.test\0\nb.test\n", "not allowed"),
        ("é.test\nz.test\n".encode(), "not allowed"),
        (b"\na.test\n", "too short"),
        (b"a.test\n\n", "too short"),
        (b"a.test\nb.test", "no end"),
        (b"a.test\n", "1 lines, the manifest says 2"),
        (b"", "0 lines"),
        (b"a.test\n" + b"b" * 254 + b"\n", "too long"),
        (b"a" * 400_000, "too long|no end"),
    ],
)
def test_list_of_domains_that_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    with pytest.raises(PackRefusedError, match=match):
        write_dataset(source, tmp_path / "target", name="x", count=2)


def test_name_of_the_greatest_length(tmp_path: Path) -> None:
    write_dataset(write(tmp_path / "source", ["a" * 253]), tmp_path / "target", name="x", count=1)


def test_list_not_sorted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_lines, "BLOCK_BYTES", 64)
    names = [f"host{number:03}.test" for number in range(50)]
    names[25], names[26] = names[26], names[25]
    with pytest.raises(PackRefusedError, match="not sorted"):
        write_dataset(write(tmp_path / "source", names), tmp_path / "target", name="x", count=50)


def test_empty_list_of_domains(tmp_path: Path) -> None:
    write_dataset(write(tmp_path / "source", []), tmp_path / "target", name="x", count=0)
    assert (tmp_path / "target").read_bytes() == b""


def test_digests(tmp_path: Path) -> None:
    source = write(tmp_path / "source", ["0" * 64, "f" * 64])
    write_digests(source, tmp_path / "target", name="x", count=2)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_empty_list_of_digests_still_loads_in_the_engine(tmp_path: Path) -> None:
    write_digests(write(tmp_path / "source", []), tmp_path / "target", name="x", count=0)
    assert (tmp_path / "target").read_bytes() == b"0" * 64 + b"\n"


@pytest.mark.parametrize("line", ["f" * 63, "f" * 65, "F" * 64, "g" * 64])
def test_line_that_is_no_digest(tmp_path: Path, line: str) -> None:
    with pytest.raises(PackRefusedError):
        write_digests(write(tmp_path / "source", [line]), tmp_path / "target", name="x", count=1)


def test_networks(tmp_path: Path) -> None:
    source = write(tmp_path / "source", ["198.51.100.0/24", "2001:db8::/32", "2001:db8:bad::99", "203.0.113.99"])
    check_networks(source, name="x", count=4)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nobody",
        "203.0.113.256",
        "203.0.113.1/24",
        "203.0.113.1/32",
        "203.0.113.0/024",
        "010.0.0.1",
        "2001:DB8::1",
        "2001:db8:0::1",
        "::1/128",
        "203.0.113.0/",
        "1" * 100,
        "fe80::1%eth0/64x",
        "é",
    ],
)
def test_line_that_is_no_address(tmp_path: Path, line: str) -> None:
    with pytest.raises(PackRefusedError, match=r"no address|not allowed|too short|too long"):
        check_networks(write(tmp_path / "source", [line]), name="x", count=1)


@pytest.mark.parametrize("lines", [["203.0.113.2", "203.0.113.1"], ["203.0.113.1", "203.0.113.1"]])
def test_addresses_in_another_order_or_twice(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(PackRefusedError, match="not sorted"):
        check_networks(write(tmp_path / "source", lines), name="x", count=2)


def test_count_of_addresses(tmp_path: Path) -> None:
    with pytest.raises(PackRefusedError, match="the manifest says 2"):
        check_networks(write(tmp_path / "source", ["203.0.113.1"]), name="x", count=2)


@given(NAMES, NAMES, st.sampled_from([16, 64, 1_000_000]))
def test_changes_lead_from_one_list_to_the_other(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], block: int
) -> None:
    directory = tmp_path_factory.mktemp("lists")
    before = write(directory / "old", sorted(old))
    after = write(directory / "new", sorted(new))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_lines, "BLOCK_BYTES", max(block, 32))
        found = list(changes(before, after))
    assert sorted(line.decode() for is_added, line in found if is_added) == sorted(set(new) - set(old))
    assert sorted(line.decode() for is_added, line in found if not is_added) == sorted(set(old) - set(new))


def test_changes_from_and_to_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "list", ["a.test", "b.test"])
    assert list(changes(None, None)) == []
    assert sorted(changes(None, path)) == [(True, b"a.test"), (True, b"b.test")]
    assert sorted(changes(path, None)) == [(False, b"a.test"), (False, b"b.test")]
    assert list(changes(path, path)) == []


@pytest.mark.parametrize(
    ("line", "is_good"),
    [("/a?b=C&d", True), ("x" * 1024, True), ("x" * 1025, False), ("a b", False), ("é", False), ("\x7f", False)],
)
def test_texts(tmp_path: Path, line: str, is_good: bool) -> None:
    source = write(tmp_path / "source", [line])
    if is_good:
        write_dataset(source, tmp_path / "target", name="x", count=1, kind=ListKind.TEXT)
        assert base64.b64decode((tmp_path / "target").read_bytes()) == line.encode()
    else:
        with pytest.raises(PackRefusedError):
            write_dataset(source, tmp_path / "target", name="x", count=1, kind=ListKind.TEXT)
