"""Debian trees by mmdebstrap, with versions from a lock file.

It makes a directory or a tar of packages and tells which packages really came; what is done with them is not
decided here. Package files are kept in the cache, and only those with the locked bytes are offered to apt.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware import lockfile, mirrors
from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError
from omamori_firmware.files import sha256_file
from omamori_firmware.lockfile import Package
from omamori_firmware.recipe import PackageList
from omamori_firmware.run import require, run, run_streaming

_TIMEOUT_S = 3600.0
_ARCHIVES = "/var/cache/apt/archives"
# Runs in mmdebstrap's outer environment with the new tree as $1: apt works on that tree's package index. The kernel
# is only downloaded: its installation would make an initrd that the image does not use.
_DOWNLOAD_KERNEL = """\
#!/bin/sh -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$1/var/cache/apt/archives"
real=$(apt-cache depends --important KERNEL | sed -n 's/^ *Depends: \\(linux-image-[0-9].*\\)$/\\1/p')
apt-get -q download KERNEL $real
# Asked from elsewhere, because files that are there already are not named.
cd "$1/tmp"
apt-get -qq --print-uris download KERNEL $real | cut -d' ' -f2 > "$1/var/cache/apt/archives/kernel.list"
"""
# Whatever differs between two runs and is not needed afterwards.
_CLEAN = """\
#!/bin/sh -e
cd "$1"
rm -rf var/lib/apt/lists/* var/cache/apt/* var/cache/ldconfig/aux-cache var/log/* etc/apt/preferences.d/omamori
rm -f var/lib/dbus/machine-id etc/resolv.conf etc/hostname
: > etc/machine-id
"""


@dataclass(frozen=True)
class Request:
    """What to bootstrap.

    Attributes:
        packages: The package list.
        lock: Locked packages, or None to take what the mirror has.
        kernel: Kernel meta package whose files are downloaded but not installed, or None.
        source_date_epoch: Time stamp for everything (seconds).
        arch: Debian's name of the packages' architecture; None for this machine's own. Installing packages of another
            one needs `emulation`.
        unpacked: Only unpack the packages: none of their scripts runs, and what every Debian system has is not added.
    """

    packages: PackageList
    lock: tuple[Package, ...] | None
    kernel: str | None
    source_date_epoch: int
    arch: str | None = None
    unpacked: bool = False


def bootstrap(request: Request, target: Path, cache: Cache, note: Callable[[str], None]) -> tuple[Package, ...]:
    """Make a Debian tree.

    Args:
        request: What to make.
        target: A directory to make, or a file name ending in `.tar`.
        cache: Where package files are kept.
        note: Told what is going on.

    Returns:
        The packages that are in it, and the downloaded kernel's.

    Raises:
        SetupError: Not root, or mmdebstrap is missing, or no mirror is configured.
        ToolError: mmdebstrap failed.
    """
    if os.geteuid() != 0:
        raise SetupError("making a root file system needs root", hint="run the command as root")
    require("mmdebstrap")
    with cache.workspace("bootstrap") as work:
        known = work / "debs"
        known.mkdir()
        # What is unpacked is told by its files, so nothing may be offered that is not wanted for sure.
        offered = _offer(cache.debs, known, () if request.unpacked and request.lock is None else request.lock)
        came = work / "came"
        came.mkdir()
        note(f"{offered} package files are in the cache")
        run_streaming(
            _command(request, target, work, known, came),
            timeout_s=_TIMEOUT_S,
            on_line=lambda line: note(line.removeprefix("I: ")),
            env=_environment(request.source_date_epoch, work),
            hint="is the mirror reachable? try: apt-get update",
        )
        installed = _unpacked(known, came) if request.unpacked else lockfile.parse_status(_status(target))
        packages = _identify(installed, came)
        for path in came.glob("*.deb"):
            shutil.move(path, cache.debs / path.name)
    return packages


def _command(request: Request, target: Path, work: Path, known: Path, came: Path) -> list[str]:
    wanted = request.packages
    preferences = work / "preferences"
    preferences.write_text(lockfile.render_preferences(request.lock or (), wanted.from_backports, wanted.suite))
    sources = work / "sources.list"
    sources.write_text(mirrors.host_mirrors().sources_list(wanted.suite))
    settings = mirrors.forwarded_options(run(["apt-config", "dump"], timeout_s=60).decode())
    # apt gives up its privileges for downloads where it can; in a directory only root may enter it would just warn.
    settings += ['APT::Install-Recommends "false"', 'APT::Sandbox::User "root"', 'Acquire::Languages "none"']
    variant = "extract" if request.unpacked else "apt"
    line = ["mmdebstrap", "--mode=root", f"--variant={variant}", f"--include={','.join(wanted.packages)}"]
    if request.arch is not None:
        # Whether the kernel can run them is `emulation`'s matter.
        line += [f"--architectures={request.arch}", "--skip=check/qemu"]
    line += [f"--aptopt={setting}" for setting in settings]
    line += [f"--dpkgopt=path-exclude={pattern}" for pattern in wanted.path_exclude]
    line += ["--skip=download/empty", "--skip=essential/unlink"]
    line += [f"--setup-hook=upload {preferences} /etc/apt/preferences.d/omamori"]
    line += [f'--setup-hook=mkdir -p "$1{_ARCHIVES}/partial"', f"--setup-hook=sync-in {known} {_ARCHIVES}"]
    if request.kernel:
        line += [f"--customize-hook={_hook(work, 'kernel', _DOWNLOAD_KERNEL.replace('KERNEL', request.kernel))}"]
    last = "--extract-hook" if request.unpacked else "--customize-hook"
    line += [f"{last}=sync-out {_ARCHIVES} {came}", f"{last}={_hook(work, 'clean', _CLEAN)}"]
    return [*line, wanted.suite, str(target), str(sources)]


def _hook(work: Path, name: str, script: str) -> Path:
    path = work / f"hook-{name}"
    path.write_text(script)
    path.chmod(0o700)
    return path


def _environment(source_date_epoch: int, work: Path) -> dict[str, str]:
    kept = ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    return environment | {"SOURCE_DATE_EPOCH": str(source_date_epoch), "LC_ALL": "C.UTF-8", "TMPDIR": str(work)}


def _offer(debs: Path, known: Path, lock: tuple[Package, ...] | None) -> int:
    """Link the usable package files of the cache into a directory for apt; return how many."""
    if lock is None:
        usable: Iterable[Path] = debs.glob("*.deb")
    else:
        present = [(debs / item.file_name, item.sha256) for item in lock]
        usable = (path for path, digest in present if path.is_file() and sha256_file(path) == digest)
    count = 0
    for path in usable:
        (known / path.name).hardlink_to(path)
        count += 1
    return count


def _status(target: Path) -> str:
    if target.is_dir():
        return (target / "var/lib/dpkg/status").read_text(encoding="utf-8")
    with tarfile.open(target) as archive:
        member = archive.extractfile("./var/lib/dpkg/status")
        assert member is not None  # dpkg cannot have run without it
        return member.read().decode()


def _unpacked(known: Path, came: Path) -> list[tuple[str, str, str]]:
    """Return name, version and architecture of what was unpacked, from the names of the package files.

    A file that apt has fetched took the place of an offered one of the same name.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for path in sorted(came.glob("*.deb"), key=lambda path: not (known / path.name).exists()):
        name, version, arch = path.stem.split("_")
        found[name] = (name, version.replace("%3a", ":"), arch)
    return sorted(found.values())


def _identify(installed: list[tuple[str, str, str]], came: Path) -> tuple[Package, ...]:
    # What came also holds package files that were offered and not taken; the kernel's are named in a list.
    chosen = came / "kernel.list"
    names = chosen.read_text().split() if chosen.exists() else []
    kernels = [re.fullmatch(r"(linux-image-.*)_(.*)_(.*)\.deb", name) for name in names]
    found = installed + [(match[1], match[2].replace("%3a", ":"), match[3]) for match in kernels if match]
    packages = []
    for name, version, arch in sorted(found):
        path = came / Package(name, version, arch, "").file_name
        if not path.is_file():
            raise SetupError(f"the package file of {name} {version} was not kept by apt")
        packages.append(Package(name, version, arch, sha256_file(path)))
    return tuple(packages)
