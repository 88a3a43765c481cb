"""A USB stick for a box without a network: the part of the repository that leads to one release, nothing else.

    STICK/metadata/…   STICK/targets/firmware/<board>/<version>/…

The same files under the same names, so the same checks. Snapshot and timestamp are signed anew for the stick, because
those of the repository live for days and a stick may lie in a drawer for weeks; the repository itself gets the versions
after them, so that no box ever sees one version with two contents. The volume's label has to be OMAMORI.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import write_atomic
from omamori_ota.metadata import sign_all, to_bytes
from omamori_ota.repository import Current
from omamori_ota.roles import DELEGATED, FIRMWARE, SNAPSHOT, TIMESTAMP
from omamori_protocol.firmware_release import FirmwareRelease

from .publication import FirmwareRepository, payload_path, releases_of

LONGEST = timedelta(days=90)


class StickWriter(FirmwareRepository):
    """A repository that sticks are written from."""

    def write_stick(
        self, out: Path, board: str, version: str, *, valid: timedelta, starts: tuple[str, ...] = ()
    ) -> FirmwareRelease:
        """Write a stick.

        Args:
            out: Directory, usually the stick's mount point; other files there are left alone.
            board: Board.
            version: Release.
            valid: How long boxes take it.
            starts: Versions whose deltas go along; the full payload always does.

        Raises:
            RejectedError: Something that is asked for is not published, or `valid` is too long.
            SetupError: The repository is damaged, or `out` is not a directory.
            TransientError: Another publisher is at work.
        """
        if not timedelta(0) < valid <= LONGEST:
            raise RejectedError(f"a stick is valid for at most {LONGEST.days}d")
        if not out.is_dir():
            raise SetupError(f"{out} is not a directory", hint="mount the stick first")
        with self.changing() as current:
            firmware = current.delegated[FIRMWARE].signed
            release = next(
                (item for item in releases_of(firmware) if (item.board, item.version) == (board, version)), None
            )
            if release is None:
                raise RejectedError(f"{version} is not published for {board}", hint="omamori-ota firmware list")
            for target in self._wanted(release, starts):
                (name,) = firmware.targets[target].get_prefixed_paths()
                place = out / "targets" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._targets / name, place)
            (out / "metadata").mkdir(exist_ok=True)
            self._write_metadata(current, out / "metadata", valid)
            self.sign_delegated(current, [])
        return release

    @staticmethod
    def _wanted(release: FirmwareRelease, starts: tuple[str, ...]) -> list[str]:
        payloads = [release.full]
        for start in starts:
            delta = release.delta_from(start)
            if delta is None:
                raise RejectedError(f"{release.version} has no delta from {start}")
            payloads.append(delta)
        wanted = [path for payload in payloads for path in (payload.path, payload_path(payload))]
        stem = payloads[0].path.rsplit("/", 1)[0]
        return [f"{stem}/release.json", *(f"{stem}/notes.{language}.md" for language, _ in release.notes), *wanted]

    def _write_metadata(self, current: Current, place: Path, valid: timedelta) -> None:
        """Write what leads to the release; the timestamp last, as in the repository."""
        meta = current.snapshot.signed.meta
        names = [f"{meta[f'{name}.json'].version}.{name}.json" for name in (*DELEGATED, "targets")]
        names += [f"{number}.root.json" for number in range(1, current.root.signed.version + 1)]
        for name in names:
            if (self._metadata / name).is_file():
                write_atomic(place / name, (self._metadata / name).read_bytes())
        now = self._clock()
        snapshot, timestamp = current.snapshot, current.timestamp
        snapshot.signed.version += 1
        snapshot.signed.expires = now + valid
        sign_all(snapshot, self._signers(current, SNAPSHOT))
        write_atomic(place / f"{snapshot.signed.version}.snapshot.json", to_bytes(snapshot))
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        timestamp.signed.version += 1
        timestamp.signed.expires = now + valid
        sign_all(timestamp, self._signers(current, TIMESTAMP))
        write_atomic(place / "timestamp.json", to_bytes(timestamp))
