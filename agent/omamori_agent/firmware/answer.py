"""What the agent and the process that unpacks for it agree on: names of files, and the answer.

Apart from `apply`, so that the agent does not load what only unpacking needs.
"""

from __future__ import annotations

import dataclasses
import json

BUNDLE_NAME = "bundle.raucb"
DOWNLOAD_NAME = "download"
INDEX_NAME = "index"
PACKED_PREFIX = "packed."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What the process says.

    Attributes:
        have: Bytes of the bundle that are right.
        is_whole: Whether that is all of it, and for `verify`: whether its hash is right.
        bad: Number of a segment that could not be made, or None.
        error: Why not, or why nothing could be done.
    """

    have: int = 0
    is_whole: bool = False
    bad: int | None = None
    error: str = ""

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(dataclasses.asdict(self))


def parse_answer(text: str) -> Answer:
    """Read the line.

    Raises:
        ValueError: It is none.
    """
    body = json.loads(text)
    if not isinstance(body, dict) or set(body) != {field.name for field in dataclasses.fields(Answer)}:
        raise ValueError("not an answer")
    answer = Answer(**body)
    numbers_are_right = type(answer.have) is int and (answer.bad is None or type(answer.bad) is int)
    if not numbers_are_right or type(answer.is_whole) is not bool or not isinstance(answer.error, str):
        raise ValueError("not an answer")
    return answer
