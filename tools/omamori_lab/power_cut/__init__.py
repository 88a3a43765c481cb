"""What a disk holds when the power goes away: QEMU logs each write, and any moment of the log can be made again."""

from .recording import Clock, Recorder, Recording
from .replay import Cut, Replay, Span, cuts
from .write_log import Entry, WriteLog

__all__ = ["Clock", "Cut", "Entry", "Recorder", "Recording", "Replay", "Span", "WriteLog", "cuts"]
