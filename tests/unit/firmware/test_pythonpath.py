"""What the device's wheels bring along."""

import base64
import hashlib
import zipfile
from pathlib import Path

from omamori_firmware.pythonpath import fetch_wheels


def make_wheel(directory: Path) -> Path:
    """A wheel with a program of its own, as some of ours have."""
    contents = {
        "demo.py": b"def main() -> None: ...\n",
        "demo-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "demo-1.0.dist-info/entry_points.txt": b"[console_scripts]\ndemo = demo:main\n",
    }
    record = ""
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    contents["demo-1.0.dist-info/RECORD"] = (record + "demo-1.0.dist-info/RECORD,,\n").encode()
    path = directory / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_nothing_of_this_machine_comes_along(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    lock = tmp_path / "lock"
    lock.write_text(f"demo @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    target = tmp_path / "target"
    fetch_wheels(lock, target, arch="x86_64")
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    # The program's first line names the interpreter it was installed with, and the record has that line's hash.
    assert found == {
        "demo.py",
        "demo-1.0.dist-info/METADATA",
        "demo-1.0.dist-info/WHEEL",
        "demo-1.0.dist-info/entry_points.txt",
    }
