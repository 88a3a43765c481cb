"""The unified kernel image: kernel, initrd and command line in one file with one signature.

The command line names the root file system by its hash, so the one signature covers all that runs.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from omamori_firmware.errors import SetupError, ToolError
from omamori_firmware.rootimage import VerityRoot
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import Board


@dataclass(frozen=True)
class SigningKey:
    """The key that the machine's firmware trusts.

    Attributes:
        key: Private key file.
        certificate: Its certificate file.
    """

    key: Path
    certificate: Path


def command_line(board: Board, verity: VerityRoot, *, version: str, flavour: str) -> str:
    """Return the kernel command line of an image."""
    words = [
        f"roothash={verity.roothash}",
        f"omamori.salt={verity.salt}",
        f"omamori.blocks={verity.blocks}",
        f"omamori.version={version}",
        f"omamori.flavour={flavour}",
        f"omamori.board={board.name}",
        f"console={board.platform.console}",
        "quiet",
        "loglevel=4",
        "oops=panic",
        "panic=10",
        # A processor that does not answer for 21 s does not forward either: start again instead of hanging.
        "sysctl.kernel.panic_on_rcu_stall=1",
        # A second of start for tests of ciphers that this box does not trust blindly anyway: every byte is verified
        # by the firmware and by dm-verity, whose answer is compared with a signed value.
        "cryptomgr.notests",
        "net.ifnames=0",
        "systemd.machine_id=firmware",
        "systemd.show_status=error",
        "systemd.default_standard_output=journal",
        *board.platform.kernel_arguments,
    ]
    return " ".join(words)


def build_uki(
    target: Path,
    *,
    kernel: Path,
    release: str,
    initrd: Path,
    os_release: Path,
    arguments: str,
    stub: Path,
    tools: ToolsTree,
) -> None:
    """Write an unsigned kernel image.

    Args:
        target: File to write.
        kernel: Kernel file.
        release: The kernel's version.
        initrd: Compressed initrd.
        os_release: Describes the system inside.
        arguments: Kernel command line.
        stub: systemd's stub for the board's processor.
        tools: Supplies ukify.
    """
    line: list[str | Path] = ["ukify", "build", f"--linux={kernel}", f"--initrd={initrd}", f"--uname={release}"]
    line += [f"--cmdline={arguments}", f"--os-release=@{os_release}", f"--stub={stub}", f"--output={target}"]
    tools.run(line, binds=[kernel.parent, initrd.parent, os_release.parent, stub.parent, target.parent])


def sign(source: Path, target: Path, key: SigningKey, tools: ToolsTree, *, epoch: int) -> None:
    """Sign a kernel image for Secure Boot, with the same bytes every time.

    Args:
        source: Unsigned file.
        target: File to write.
        key: The key.
        tools: Supplies sbsign.
        epoch: Signing time (seconds).

    Raises:
        SetupError: The key or its certificate is not there.
        ToolError: They do not fit each other or the file.
    """
    for path in (key.key, key.certificate):
        if not path.is_file():
            raise SetupError(f"{path} is not there", hint="make keys with: omamori-ota keys init DIR")
    stamp = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")
    line: list[str | Path] = ["faketime", "-f", f"@{stamp}", "sbsign", "--key", key.key, "--cert", key.certificate]
    binds = [source.parent, target.parent, key.key.parent, key.certificate.parent]
    tools.run([*line, "--output", target, source], binds=binds)
    try:
        tools.run(["sbverify", "--cert", key.certificate, target], binds=binds)
    except ToolError as err:
        raise SetupError(
            f"{key.key} does not belong to {key.certificate}", hint="take both from one `omamori-ota keys init`"
        ) from err
