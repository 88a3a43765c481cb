"""The product's own command lines, called as an operator would call them. No shortcut into their insides."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .errors import CommandError, SetupError
from .run import run, run_showing
from .settings import BOARD

_BUILD_TIMEOUT_S = 3600.0
_COMMAND_TIMEOUT_S = 120.0


def program(name: str) -> str:
    """Return the path of one of our console scripts.

    Raises:
        SetupError: It is not installed beside this Python.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise SetupError(f"{path} does not exist", hint="run: make setup")
    return str(path)


def call(name: str, *arguments: str | Path, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
    """Run one of our programs and return what it printed.

    Raises:
        CommandError: It failed; its own ``error:`` and ``hint:`` are in the message.
    """
    finished = run([program(name), *arguments], timeout_s=timeout_s, check=False)
    if not finished.ok:
        raise CommandError(f"{name} {arguments[0]}", finished.exit_code, finished.errors or finished.output)
    return finished.output


def ensure_keys(keys: Path) -> None:
    """Make the development keys if there are none, and what a directory of an older version lacks."""
    if not keys.exists():
        keys.parent.mkdir(parents=True, exist_ok=True)
        call("omamori-ota", "keys", "init", keys)
    elif not ((keys / "desired").is_dir() and (keys / "bundle").is_dir()):
        call("omamori-ota", "keys", "complete", keys)


def image_version(flavour: str) -> str:
    """Return the version of images built from this tree; one for development cannot be taken for a released one."""
    version = metadata.version("omamori")
    return version if flavour == "release" else f"{version}-dev.1"


def build_image(
    keys: Path, out: Path, flavour: str, *, version: str | None = None, board: str = BOARD
) -> dict[str, object]:
    """Bring the image up to date (quick when nothing changed) and return its manifest.

    Args:
        keys: Key directory.
        out: Artifact directory.
        flavour: `release` or `dev`.
        version: Product version, built without a word; None for this tree's, with the build's own progress.
        board: What it is for.

    Raises:
        CommandError: The build failed; it has reported on standard error itself.
        SetupError: The artifact directory has no readable manifest.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["build", "--board", board, "--flavour", flavour, "--trust", keys / "trust"]
    command += ["--secureboot-key", keys / "secureboot" / "db.key", "--out", out]
    # A mirror that has moved on must not keep a developer from working; the manifest says so (docs/adr/0003).
    command += ["--allow-drift"]
    command += ["--version", version or image_version(flavour)]
    if version is None:
        run_showing([program("omamori-image"), *command], timeout_s=_BUILD_TIMEOUT_S)
    else:
        call("omamori-image", *command, timeout_s=_BUILD_TIMEOUT_S)
    return read_manifest(out)


def read_manifest(image: Path) -> dict[str, object]:
    """Return the manifest of an artifact directory.

    Raises:
        SetupError: There is none.
    """
    try:
        body = json.loads((image / "manifest.json").read_text())
    except (OSError, ValueError) as err:
        raise SetupError(f"{image} is not an artifact directory: {err}", hint="run: make image") from err
    if not isinstance(body, dict):
        raise SetupError(f"{image}/manifest.json is not an object")
    return body


def server_tls(keys: Path, out: Path, names: Sequence[str]) -> Path:
    """Make the TLS directory of a server."""
    call("omamori-ota", "pki", "server", keys, out, *(word for name in names for word in ("--name", name)))
    return out


def client_tls(keys: Path, out: Path, name: str) -> Path:
    """Make the TLS directory of a service that connects to the broker."""
    call("omamori-ota", "pki", "client", keys, out, "--name", name)
    return out


def factory_disk(*, keys: Path, registry: Path, template: Path, serial: str, image: Path, out: Path) -> Path:
    """Enter a serial with a new claim into the registry and make that box's disk.

    Args:
        keys: Key directory.
        registry: The enrolment server's registry; made when absent.
        template: provision.json without serial and claim.
        serial: Of the box.
        image: Artifact directory.
        out: Directory for ``disk.raw``; the provisioning with the claim does not stay there.
    """
    provision = out / "provision.json"
    words: list[str | Path] = ["--serial", serial, "--provision-template", template, "--out", provision]
    call("omamori-ota", "factory", keys, registry, *words)
    disk = out / "disk.raw"
    try:
        call("omamori-image", "factory", image, "--provision", provision, "--out", disk)
    finally:
        provision.unlink(missing_ok=True)
    return disk
