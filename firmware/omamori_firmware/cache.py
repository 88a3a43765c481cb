"""Results of build stages, kept by the hash of everything that went in.

Layout of the cache directory: `objects/<stage>-<key>/` finished results, `debs/` package files, `tmp/` work in
progress, `locks/`. A result appears under its name only when it is complete. Old results of a stage are removed
when newer ones come; nothing else is ever deleted.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from omamori_firmware.errors import SetupError
from omamori_firmware.files import locked

_DEFAULT = Path("/var/cache/omamori")
_KEEP = 4
# A result that somebody used this recently may still be in use, by a build or by a virtual machine.
_KEEP_S = 3600


def default_directory() -> Path:
    """Return the cache directory: `$OMAMORI_CACHE`, or the system's."""
    return Path(os.environ.get("OMAMORI_CACHE") or _DEFAULT)


class Cache:
    """Finished stages and the place where stages work."""

    def __init__(self, directory: Path) -> None:
        """Remember the directory; it is made when first needed."""
        self._directory = directory

    @property
    def debs(self) -> Path:
        """Directory of Debian package files under apt's own names."""
        return self._made("debs")

    def find(self, stage: str, inputs: Mapping[str, str]) -> Path | None:
        """Return the finished result of a stage, or None."""
        result = self._result(stage, inputs)
        if not result.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(result)
        return result

    def obtain(self, stage: str, inputs: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        """Return the result of a stage, and build it if it is not there.

        Args:
            stage: Name of the stage.
            inputs: Everything the result depends on, by name.
            build: Fills the empty directory it is given. It is called at most once per key on this machine.
        """
        found = self.find(stage, inputs)
        if found:
            return found
        result = self._result(stage, inputs)
        with locked(self._made("locks") / result.name):
            found = self.find(stage, inputs)
            if found:
                return found
            with self.workspace(stage) as work:
                fresh = work / "result"
                fresh.mkdir()
                build(fresh)
                result.parent.mkdir(parents=True, exist_ok=True)
                fresh.rename(result)
        self._prune(stage, keep=result)
        return result

    @contextlib.contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """Give a temporary directory on the cache's file system; it is gone afterwards.

        Directories that a killed build left behind are removed on the way.
        """
        self._sweep()
        directory = Path(tempfile.mkdtemp(prefix=f"{purpose}.", dir=self._made("tmp")))
        with (directory / ".lock").open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def lock_file(self, purpose: str) -> Path:
        """Return a file that builds of this machine may lock to meet each other."""
        return self._made("locks") / purpose

    def _result(self, stage: str, inputs: Mapping[str, str]) -> Path:
        key = hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()[:20]
        return self._directory / "objects" / f"{stage}-{key}"

    def _made(self, name: str) -> Path:
        path = self._directory / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise SetupError(
                f"the cache directory {path} cannot be made ({err.strerror})",
                hint="run as root, or name a directory of yours in OMAMORI_CACHE",
            ) from err
        return path

    def _sweep(self) -> None:
        for directory in self._made("tmp").iterdir():
            lock = directory / ".lock"
            try:
                with lock.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
            except OSError:
                continue  # in use, or only just being made

    def _prune(self, stage: str, *, keep: Path) -> None:
        results = [path for path in (self._directory / "objects").glob(f"{stage}-*") if path != keep]
        results.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in results[_KEEP - 1 :]:
            if time.time() - path.stat().st_mtime > _KEEP_S:
                shutil.rmtree(path, ignore_errors=True)
