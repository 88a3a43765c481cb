"""Imports point down only (docs/architecture.md, "Who may import whom")."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = {
    "omamori_protocol": "protocol",
    "omamori_hw": "hw",
    "omamori_firmware": "firmware",
    "omamori_agent": "agent",
    "omamori_signatures": "signatures",
    "omamori_ota": "ota",
    "omamori_cloud": "cloud",
    "omamori_lab": "tools",
}

# package -> packages (or single modules) of ours that it may import, besides itself
ALLOWED = {
    "omamori_protocol": set(),
    "omamori_hw": {"omamori_protocol"},
    "omamori_firmware": {"omamori_protocol", "omamori_hw"},
    "omamori_agent": {"omamori_protocol", "omamori_hw"},
    "omamori_signatures": {"omamori_protocol"},
    "omamori_ota": {"omamori_protocol"},
    "omamori_cloud": {"omamori_protocol", "omamori_ota.rollout"},
    "omamori_lab": set(FOLDERS) - {"omamori_lab"},
}

# What the box carries may import these and the standard library, nothing else.
DEVICE_LIBRARIES = {"backports", "cbor2", "cryptography", "paho", "tuf", "securesystemslib", "urllib3"}
PROTOCOL_LIBRARIES = {"cbor2", "cryptography"}


def imports_of(path: Path) -> set[str]:
    """Return the absolute names that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / FOLDERS[package] / package).rglob("*.py"))


@pytest.mark.parametrize("package", FOLDERS)
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    wrong = []
    for path in modules(package):
        for name in imports_of(path):
            if not name.startswith("omamori_") or name.split(".")[0] == package:
                continue
            if not any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[package]):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("package", ["omamori_protocol", "omamori_hw", "omamori_agent"])
def test_device_code_uses_only_what_the_image_carries(package: str) -> None:
    allowed = PROTOCOL_LIBRARIES if package == "omamori_protocol" else DEVICE_LIBRARIES
    foreign = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports_of(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names
        and not top.startswith("omamori_")
        and top not in allowed
    }
    assert not foreign


@pytest.mark.parametrize("package", FOLDERS)
def test_only_the_run_module_starts_processes(package: str) -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in modules(package)
        if path.name != "run.py" and {"subprocess", "os.system", "os.popen"} & imports_of(path)
    ]
    assert not offenders


def test_every_package_is_in_the_table() -> None:
    found = {
        path.name
        for folder in ROOT.iterdir()
        if folder.is_dir()
        for path in folder.glob("omamori_*")
        if path.is_dir() and path.suffix == ""
    }
    assert {name for name in found if not name.endswith("egg-info")} == set(FOLDERS)
