"""Rules for the benches: real ones from directories of the user's, or generated ones of the same number.

A directory holds `*.rules` files or `.tar`, `.tar.gz`, `.tar.zst` archives with such files; nothing is fetched, and
nothing of it is kept. The first rule of an id wins, active rules come before the ones that their authors have switched
off; the latter are taken only to make up the wanted number, and the result says how many.
"""

from __future__ import annotations

import dataclasses
import random
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import SetupError
from .run import run

MAX_FILE_BYTES = 64 << 20
MAX_FILES = 2000
_RULE = re.compile(
    rb"(?P<off>#\s*)?(?:alert|drop|reject|pass)\s[^\n]*[(;\s]sid\s*:\s*(?P<sid>[0-9]{1,9})\s*;[^\n]*\)\s*"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEADERS = {"http": "http $HOME_NET any -> $EXTERNAL_NET any", "tls": "tls $HOME_NET any -> $EXTERNAL_NET any"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleSet:
    """Rules as text, one a line.

    Attributes:
        text: The rules.
        count: How many.
        origin: In words, for the result.
    """

    text: bytes = dataclasses.field(repr=False)
    count: int
    origin: str


def read_rules(directories: Sequence[Path], wanted: int) -> RuleSet:
    """Return real rules of some directories, `wanted` of them or as many as there are.

    Raises:
        SetupError: There is none, or a directory holds more than it should.
    """
    active: dict[int, bytes] = {}
    switched_off: dict[int, bytes] = {}
    for data in (data for directory in directories for data in _rule_files(directory)):
        for line in data.splitlines():
            found = _RULE.fullmatch(line.strip())
            if found:
                chosen = switched_off if found["off"] else active
                chosen.setdefault(int(found["sid"]), line.strip().lstrip(b"# \t"))
    spare = [rule for sid, rule in switched_off.items() if sid not in active]
    rules = list(active.values())[:wanted]
    added = spare[: wanted - len(rules)]
    if not rules:
        raise SetupError("no rules there", hint="give directories with *.rules files or archives of them")
    origin = f"{len(rules)} active rules of public rule sets"
    if added:
        origin += f", {len(added)} that their authors switched off"
    return RuleSet(text=b"".join(rule + b"\n" for rule in rules + added), count=len(rules) + len(added), origin=origin)


def generate_rules(wanted: int) -> RuleSet:
    """Return `wanted` rules of the usual shapes with random words; the same ones every time."""
    source = random.Random(20261122)  # noqa: S311 - to look alike every time, not to be secret

    def word(low: int, high: int) -> str:
        return "".join(source.choices(_LETTERS, k=source.randint(low, high)))

    lines = []
    for number in range(wanted):
        shape = source.random()
        if shape < 0.4:
            match = f'http.uri; content:"/{word(4, 9)}/{word(4, 12)}"; fast_pattern; content:"{word(3, 6)}="'
            header = _HEADERS["http"]
        elif shape < 0.5:
            header, match = _HEADERS["http"], f'http.user_agent; content:"{word(6, 14)}"'
        elif shape < 0.7:
            header, match = "dns $HOME_NET any -> any any", f'dns.query; content:"{word(6, 14)}.{word(3, 5)}"; nocase'
        elif shape < 0.9:
            header, match = _HEADERS["tls"], f'tls.sni; content:"{word(6, 14)}.{word(2, 4)}"; endswith'
        else:
            header = "tcp $EXTERNAL_NET any -> $HOME_NET any"
            match = f'flow:established,to_client; content:"|{source.randrange(256):02x}|{word(6, 16)}"; depth:400'
        lines.append(f'alert {header} (msg:"bench {number}"; {match}; sid:{3_000_000 + number}; rev:1;)\n')
    return RuleSet(text="".join(lines).encode(), count=wanted, origin=f"{wanted} generated rules")


def obtain_rules(directories: Sequence[Path], wanted: int) -> RuleSet:
    """Return `wanted` rules: real ones if directories are given, generated ones for what is missing.

    Raises:
        SetupError: A directory holds no rules.
    """
    if not directories:
        return generate_rules(wanted)
    real = read_rules(directories, wanted)
    missing = wanted - real.count
    if missing <= 0:
        return real
    made = generate_rules(missing)
    return RuleSet(text=real.text + made.text, count=wanted, origin=f"{real.origin}, {missing} generated")


def write_feed(rules: RuleSet, directory: Path) -> Path:
    """Write a feed directory as the engine expects it, and return it."""
    engine = directory / "engine"
    engine.mkdir(parents=True, exist_ok=True)
    (engine / "datasets.yaml").write_text("%YAML 1.1\n---\ndatasets: {}\n")
    (engine / "all.rules").write_bytes(rules.text)
    return directory


def _rule_files(directory: Path) -> Iterator[bytes]:
    if not directory.is_dir():
        raise SetupError(f"{directory} is no directory", hint="give a directory with *.rules files or archives of them")
    count = 0
    for path in sorted(directory.rglob("*")):
        if path.name.endswith(".rules") and path.is_file():
            found: Iterator[bytes] = iter([_bounded(path)])
        elif path.name.endswith((".tar", ".tar.gz", ".tar.zst")):
            found = _archived(path)
        else:
            continue
        for data in found:
            count += 1
            if count > MAX_FILES:
                raise SetupError(f"{directory} holds more than {MAX_FILES} rule files")
            yield data


def _bounded(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise SetupError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _archived(path: Path) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="omamori-rules-") as scratch:
        plain = path
        if path.suffix == ".zst":
            plain = Path(scratch) / "archive.tar"
            run(["zstd", "-q", "-d", "--long=27", path, "-o", plain], timeout_s=120)
        with tarfile.open(plain) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name.endswith(".rules") and member.isfile() else None
                if stream is None:
                    continue
                data = stream.read(MAX_FILE_BYTES + 1)
                if len(data) > MAX_FILE_BYTES:
                    raise SetupError(f"{path.name}: {member.name} is larger than {MAX_FILE_BYTES} bytes")
                yield data
