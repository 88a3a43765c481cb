"""The repository speaks of the product alone: no machine paths, no registry hosts, no keys."""

import re
import subprocess  # noqa: TID251 - asks git, a test only
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces so that this file does not match itself.
FORBIDDEN = {
    "machine path": r"/work/" + r"(main|shared)|/root/\.",
    "registry host": r"deb\.deb" + r"ian\.org|pypi\." + r"org|pythonhost" + r"ed|registry\.npm" + r"js",
    "private key": r"BEGIN (RSA |EC |OPENSSH )?PRIV" + r"ATE KEY",
}


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listing.split("\0") if name]


def test_nothing_names_a_machine_a_registry_or_a_key() -> None:
    hits = []
    for path in tracked_files():
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for what, pattern in FORBIDDEN.items():
            hits += [f"{path.relative_to(ROOT)}: {what}: {match[0]}" for match in re.finditer(pattern, text)]
    assert not hits


def test_locks_pin_every_package_by_hash() -> None:
    for name in ("dev", "device"):
        lines = (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
        pins = [line for line in lines if re.match(r"^[a-z0-9]", line)]
        assert pins
        assert all(re.match(r"^[a-z0-9._-]+(\[[a-z]+\])?==\S+", line) for line in pins)
        assert sum("--hash=sha256:" in line for line in lines) >= len(pins)


def test_every_console_script_is_documented_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for script in ("omamori-image", "omamori-lab", "omamori-feed", "omamori-ota", "omamori-cloud", "omamori-agent"):
        assert script in readme
