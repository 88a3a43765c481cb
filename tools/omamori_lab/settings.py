"""What a lab is asked for, decided once from the command line, and where its files lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

SERIAL = "ZA35-000001"
CHANNEL = "demo"
BOARD = "x86_64-uefi"
TREE = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabSettings:
    """Settings of one lab.

    Attributes:
        state: Directory for everything the lab writes while it runs; its `run` folder is emptied at each start.
        keys: Key directory, made when absent.
        image: Artifact directory of the image, brought up to date at each start.
        board: What the image is for, and which machine is imitated.
        flavour: Of the image; the scenes that break things need `dev`.
        page_port: Port of the page on the loopback; 0 for any free one.
        memory_mib: Memory of the box.
        supervisor: Whether the box has a supervisor, which holds the wire.
        tpm: Whether the box has a TPM.
        recordings: Where every write of the box is recorded, for power cuts; None: nowhere.
    """

    state: Path = TREE / "build" / "lab"
    keys: Path = TREE / "build" / "keys"
    image: Path = TREE / "build" / "image" / "dev"
    board: str = BOARD
    flavour: str = "dev"
    page_port: int = 8080
    memory_mib: int = 1024
    supervisor: bool = False
    tpm: bool = False
    recordings: Path | None = None
    feed_source: Path = TREE / "signatures" / "demo"

    @staticmethod
    def image_directory(board: str, flavour: str) -> Path:
        """Return where the image of a board lies by default."""
        return TREE / "build" / "image" / (flavour if board == BOARD else f"{board}-{flavour}")

    @property
    def run(self) -> Path:
        """Files of the present run."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """Logs of the servers and the console."""
        return self.state / "run" / "logs"
