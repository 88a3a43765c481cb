"""Another root directory: what the programs inside see, and that nothing stays mounted."""

import os
import subprocess  # noqa: TID251 - starts the module under test
import sys
from pathlib import Path

import pytest

from omamori_firmware import enter

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose /usr is this machine's."""
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    (top / "etc" / "here").touch()
    (top / "usr").symlink_to("/usr")
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).exists():
            (top / name).symlink_to(f"usr/{name}")
    return top


def inside(tree: Path, script: str, *binds: Path) -> str:
    line = enter.command(tree, "tools", binds, ["sh", "-c", script])
    return subprocess.run(line, capture_output=True, check=True, text=True, timeout=30).stdout


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_the_tree_is_the_root_and_read_only(tree: Path) -> None:
    assert inside(tree, "ls /etc; touch /etc/x 2>/dev/null || echo refused").split() == ["here", "refused"]


def test_directories_appear_under_their_own_names_and_nothing_stays_mounted(tree: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    before = mounts()
    inside(tree, f"echo made > {shared}/x", shared)
    assert (shared / "x").read_text() == "made\n"
    assert mounts() == before
    assert not (tree / "tmp").exists()


def test_the_process_id_is_the_programs_own(tree: Path) -> None:
    line = enter.command(tree, "tools", [], ["sh", "-c", "echo $$"])
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=30)
    assert int(output) == process.pid


def test_inherited_descriptors_stay_open(tree: Path) -> None:
    reader, writer = os.pipe()
    line = enter.command(tree, "tools", [], ["bash", "-c", f"echo hi >&{writer}"])
    subprocess.run(line, check=True, pass_fds=[writer], timeout=30)
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert stream.read() == "hi\n"


def test_it_works_when_this_machine_is_itself_a_chroot(tree: Path, tmp_path: Path) -> None:
    """There `/` is no mount point, so that it cannot be made private."""
    machine = tmp_path / "machine"
    code = Path(enter.__file__).parent
    script = f"""
        set -e
        mkdir -p {machine}; cd {machine}
        for name in usr etc proc dev {tmp_path} {sys.prefix} {code}; do mkdir -p ./$name; done
        for name in bin sbin lib lib64; do [ ! -e /$name ] || ln -s usr/$name $name; done
        mount --bind /usr usr; mount --bind /etc etc; mount -t proc proc proc; mount --rbind /dev dev
        mount --bind {sys.prefix} ./{sys.prefix}; mount --bind {code} ./{code}
        mkdir -p ./{tree}; cp -a {tree}/. ./{tree}
        exec chroot . {" ".join(enter.command(tree, "tools", [], ["ls", "/etc"]))}
    """
    line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["here"]
