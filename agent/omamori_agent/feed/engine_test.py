"""Lets the engine itself judge a feed before it gets it: ``suricata -T`` with a configuration that names it.

A second engine beside the one that works must not need as much memory as that one: the lists, which the agent has
checked line by line, are left empty for the test, and rules are tested some thousand at a time. If memory ends all the
same, the test is what goes.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from omamori_agent.config import Paths
from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded
from omamori_agent.run import CommandError, CommandInterruptedError, run
from omamori_agent.text import clean_text

from .engine_files import DATASETS_NAME, ENGINE_DIRECTORY
from .errors import ActivationInterruptedError, FeedPostponedError, PackRefusedError
from .exclusion import RULES_NAME

logger = logging.getLogger(__name__)

MAX_CONFIG_BYTES = 256 * 1024
COMMAND = ("nice", "-n", "15", "suricata")
MAX_RULES = 8000  # at once: about 100 MiB
_ERROR_PREFIXES = ("E: ", "Error: ")
_REFUSED = "error parsing signature"  # the line after the reason
_THREAD = "Suricata-Main"  # stands before the text when the output is no terminal


class EngineTest:
    """The engine's own test of a feed directory.

    Args:
        paths: The engine's configuration, and the link it names.
        timeout_s: How long a test may take.
        command: The engine's program with what comes before it.
    """

    def __init__(self, paths: Paths, *, timeout_s: float, command: Sequence[str] = COMMAND) -> None:
        self._paths = paths
        self._timeout_s = timeout_s
        self._command = command

    def check(self, directory: Path, stop: threading.Event) -> None:
        """Test the feed in `directory`; the running engine is not touched.

        Raises:
            PackRefusedError: The engine would not load it.
            FeedPostponedError: The test could not be made, or did not end in time.
            ActivationInterruptedError: The agent stops.
        """
        work = Path(tempfile.mkdtemp(prefix="engine-test-", dir=self._paths.feed / "download"))
        try:
            for number, rules in enumerate(_portions(directory / ENGINE_DIRECTORY / RULES_NAME)):
                part = work / str(number)
                _lay_out(directory / ENGINE_DIRECTORY, part / ENGINE_DIRECTORY, rules)
                code, output = self._run(part, work, stop)
                shutil.rmtree(part)
                if code < 0:
                    raise FeedPostponedError(f"the engine's test was killed by signal {-code}")
                if code != 0:
                    raise PackRefusedError(f"engine test failed: {_first_error(output) or f'exit code {code}'}")
        except CommandInterruptedError as err:
            raise ActivationInterruptedError("the agent stops during the engine's test") from err
        except (CommandError, OSError) as err:
            raise FeedPostponedError(f"the engine's test could not be made: {err}") from err
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _run(self, directory: Path, work: Path, stop: threading.Event) -> tuple[int, str]:
        config = work / "suricata.yaml"
        config.write_text(self._config_for(directory, work), encoding="utf-8")
        args = [*self._command, "-T", "-c", os.fspath(config), "-l", os.fspath(work)]
        result = run(args, timeout_s=self._timeout_s, stop=stop, is_first_to_go=True)
        return result.exit_code, result.output

    def _config_for(self, directory: Path, work: Path) -> str:
        """Return the engine's configuration with the feed's place, and where it may write, replaced."""
        try:
            text = read_bounded(self._paths.engine_config, MAX_CONFIG_BYTES).decode("utf-8")
        except FileNotFoundError as err:
            raise SetupError(f"{self._paths.engine_config}: missing") from err
        current = f"{self._paths.feed_current}/"
        if current not in text:
            raise SetupError(f"{self._paths.engine_config} does not name {current}", hint="the image is broken")
        return text.replace(current, f"{directory}/").replace(f"{self._paths.eve.parent}/", f"{work}/")


def _portions(rules: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a file of rules, not more than `MAX_RULES` at a time; at least once."""
    with rules.open("rb") as file:
        yield list(itertools.islice(file, MAX_RULES))
        while lines := list(itertools.islice(file, MAX_RULES)):
            yield lines


def _lay_out(engine: Path, target: Path, rules: list[bytes]) -> None:
    """Make what the engine loads for a test: some rules, the digests they may name, and the lists without entries."""
    target.mkdir(parents=True)
    (target / RULES_NAME).write_bytes(b"".join(rules))
    shutil.copyfile(engine / DATASETS_NAME, target / DATASETS_NAME)
    for path in engine.iterdir():
        if path.suffix == ".lst":
            (target / path.name).touch()
        elif path.suffix == ".sha256":
            os.link(path, target / path.name)


def _first_error(output: str) -> str:
    """Return why the first rule was refused; the engine also tells errors for which it refuses nothing."""
    errors = list(_errors(output))
    for reason, what in itertools.pairwise(errors):
        if _REFUSED in what and _REFUSED not in reason:
            return reason
    return errors[0] if errors else ""


def _errors(output: str) -> Iterator[str]:
    for line in output.splitlines():
        for prefix in _ERROR_PREFIXES:
            if line.startswith(prefix):
                yield clean_text(line.removeprefix(prefix).removeprefix(_THREAD), 200)
