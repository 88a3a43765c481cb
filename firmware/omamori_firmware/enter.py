"""Run a program inside another root directory, in a mount namespace of its own.

Used as `python -m omamori_firmware.enter ...`, which ends in exec: the process id stays the same and the program
becomes our caller's direct child. Mounts are made in a private namespace, so that none can stay behind whatever
dies. It isolates nothing else: network, users and processes are the caller's.

Rules:
- It must work when the developer's machine is itself a chroot, where `/` is no mount point and cannot be made
  private. All mounts therefore go on top of `/proc`, which is one, and which is made private first.
- `tools` mode composes a fresh root: `/usr` and `/etc` of the tree read-only, everything else empty, and the
  caller's directories under their own names. Nothing is ever written into the tree.
- `root` mode uses the tree itself as the root, for programs that must change it.
"""

import ctypes
import ctypes.util
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
_SCAFFOLD = Path("/proc")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def command(tree: Path, mode: str, binds: Sequence[Path], argv: Sequence[str | Path]) -> list[str]:
    """Return the command line that runs a program inside a tree.

    Args:
        tree: Directory that holds the other root.
        mode: `tools` or `root`, see the module's rules.
        binds: Directories of this machine that appear inside under the same name.
        argv: Program, as the tree names it, and its arguments.
    """
    line = [sys.executable, "-I", str(Path(__file__).resolve()), mode, str(tree)]
    line += [f"--bind={path}" for path in binds]
    return [*line, "--", *(str(part) for part in argv)]


def main(arguments: Sequence[str]) -> None:
    """Make the mounts, change the root and become the program."""
    mode, tree = arguments[0], Path(arguments[1])
    split = arguments.index("--")
    binds = [Path(option.removeprefix("--bind=")) for option in arguments[2:split]]
    argv = arguments[split + 1 :]
    _call("unshare", CLONE_NEWNS)
    _mount(None, _SCAFFOLD, None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", _SCAFFOLD, "tmpfs", 0, "mode=755,size=64m")
    inside = _SCAFFOLD / "root"
    inside.mkdir()
    if mode == "tools":
        _compose(tree, inside)
    else:
        _mount(str(tree), inside, None, MS_BIND)
    _mount("proc", inside / "proc", "proc", 0)
    _mount("/dev", inside / "dev", None, MS_BIND | MS_REC)
    for path in binds:
        (inside / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
        _mount(str(path), inside / path.relative_to("/"), None, MS_BIND | MS_REC)
    here = Path.cwd()
    os.chroot(inside)
    os.chdir(here if any(here.is_relative_to(path) for path in binds) else "/")
    os.environ["PATH"] = "/usr/sbin:/usr/bin"
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["TZ"] = "UTC"
    try:
        os.execvp(argv[0], [*argv])  # noqa: S606 - the whole point of this module
    except OSError as err:
        raise OSError(err.errno, f"{argv[0]}: {err.strerror}") from err


def _compose(tree: Path, inside: Path) -> None:
    for name in ("usr", "etc"):
        (inside / name).mkdir()
        _mount(str(tree / name), inside / name, None, MS_BIND)
        _mount(None, inside / name, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    for name in _LINKS:
        if (tree / name).is_symlink():
            (inside / name).symlink_to((tree / name).readlink())
    for name in ("proc", "dev", "run", "var", "root"):
        (inside / name).mkdir()
    for name in ("tmp", "var/tmp"):
        (inside / name).mkdir()
        (inside / name).chmod(0o777 | stat.S_ISVTX)


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *values: object) -> None:
    if getattr(_libc, name)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    _call(
        "mount",
        source.encode() if source else None,
        str(target).encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as err:
        sys.stderr.write(f"in {sys.argv[2]}: {err}\n")
        sys.exit(127)
