"""One lab, put together: journal, surroundings, box. The only place that knows all parts."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.recipe import source_tree
from omamori_firmware.software_tpm import SoftwareTPM, tpm_tree

from . import products
from .box import BootReport, Box
from .cleaning import clean_owned
from .errors import SetupError
from .journal import Journal, owned
from .office import Client
from .portal import Portal, identity
from .power_cut import Recorder
from .progress import Progress, Silence
from .settings import SERIAL, LabSettings
from .supervised import Supervisor
from .surroundings import Listeners, Surroundings
from .waiting import wait_for

_ONLINE_TIMEOUT_S = 30.0


class Lab:
    """An office, a box and an internet.

    Args:
        settings: What is asked for.
        progress: Told what is being done.

    Attributes:
        durations_s: How long the stages took, in seconds.
        image: Manifest of the image.
        recorder: Records every write of the box; None if that was not asked for.
        supervisor: The box's supervisor while the lab runs; None if that was not asked for.
    """

    def __init__(self, settings: LabSettings, progress: Progress | None = None) -> None:
        self.settings = settings
        self.serial = SERIAL
        self._progress: Progress = progress or Silence()
        self.durations_s: dict[str, float] = {}
        self.image: dict[str, object] = {}
        self._surroundings: Surroundings | None = None
        self._box: Box | None = None
        self._journal: Journal | None = None
        self.supervisor: Supervisor | None = None
        self.recorder = Recorder(settings.recordings) if settings.recordings is not None else None

    @contextlib.contextmanager
    def surrounded(self) -> Iterator[None]:
        """Start everything but the box; on leaving stop it again.

        Raises:
            SetupError: Another lab holds the state directory, or something is not installed.
        """
        with owned(self.settings.state):
            clean_owned(self.settings.state)
            journal = Journal(self.settings.state)
            self._journal = journal
            try:
                with self._timed("keys"):
                    products.ensure_keys(self.settings.keys)
                self._surroundings = Surroundings(self.settings, journal, self._progress.step)
                begin = time.monotonic()
                with self._surroundings.running():
                    self.durations_s["surroundings"] = time.monotonic() - begin
                    yield
            finally:
                self._surroundings = None
                journal.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start everything, with the box in place but switched off; on leaving stop it all."""
        self._progress.step("firmware image")
        with self._timed("image"):
            products.ensure_keys(self.settings.keys)
            with self._progress.quiet():
                self.image = products.build_image(
                    self.settings.keys, self.settings.image, self.settings.flavour, board=self.settings.board
                )
        with self.surrounded():
            self._progress.step("factory disk")
            with contextlib.ExitStack() as stack:
                self.supervisor = self._make_supervisor(stack)
                with self._timed("factory"):
                    self._box = self._make_box()
                try:
                    yield
                finally:
                    box, self._box = self._box, None
                    self.supervisor = None
                    box.close()

    @property
    def surroundings(self) -> Surroundings:
        """What is around the box, while it is there."""
        if self._surroundings is None:
            raise SetupError("the lab is not running")
        return self._surroundings

    @property
    def box(self) -> Box:
        """The box, while the lab runs."""
        if self._box is None:
            raise SetupError("the lab has no box at the moment")
        return self._box

    @property
    def portal(self) -> Portal:
        """The cloud's page."""
        return self.surroundings.portal

    @property
    def listeners(self) -> Listeners:
        """The small servers that remember."""
        return self.surroundings.listeners

    def client(self, name: str) -> Client:
        """Return the person at ``pc1``, ``pc2``, ``pc3``, ``srv``, ``attacker`` or ``block-listed``."""
        return self.surroundings.client(name)

    def known_alerts(self) -> set[object]:
        """Return the identities of the alerts that are in the portal now."""
        return {identity(alert) for alert in self.portal.alerts()}

    def boot(self) -> BootReport:
        """Switch the box on, wait until it protects and the portal says so."""
        self._progress.step("power-on")
        self.box.power_on()
        boot = self.box.await_protecting()
        self.durations_s["forwarding"] = boot.forwarding_s
        self.durations_s["protecting"] = boot.protecting_s
        self.await_online()
        return boot

    def await_online(self) -> dict[str, Any]:
        """Wait until the portal shows the box as online; return it."""

        def online() -> dict[str, Any] | None:
            found = [box for box in self.portal.boxes() if box["device"] == self.serial]
            return found[0] if found and found[0]["online"] else None

        return wait_for(online, f"{self.serial} online in the portal", timeout_s=_ONLINE_TIMEOUT_S, every_s=0.3)

    def _make_supervisor(self, stack: contextlib.ExitStack) -> Supervisor | None:
        relay = self.surroundings.topology.relay
        if relay is None:
            return None
        assert self._journal is not None
        self._progress.step("supervisor")
        made = Supervisor(relay, self._journal, self.settings.run / "supervisor", reset=self._reset_box)
        return stack.enter_context(made.running())

    def _make_tpm(self, place: Path) -> SoftwareTPM | None:
        if not self.settings.tpm:
            return None
        self._progress.step("TPM")
        return SoftwareTPM(place, tpm_tree(source_tree(), Cache(default_directory())))

    def _reset_box(self) -> None:
        box = self._box
        if box is not None:
            box.reset()

    def _make_box(self) -> Box:
        assert self._journal is not None
        run = self.settings.run
        out = run / "box"
        out.mkdir()
        disk = products.factory_disk(
            keys=self.settings.keys,
            registry=self.surroundings.registry,
            template=run / "provision-template.json",
            serial=self.serial,
            image=self.settings.image,
            out=out,
        )
        variables = out / "vars.fd"
        shutil.copyfile(self.settings.image / "vars.fd", variables)
        return Box(
            disk=disk,
            variables=variables,
            topology=self.surroundings.topology,
            journal=self._journal,
            workdir=out,
            memory_mib=self.settings.memory_mib,
            on_line=lambda text: self._progress.moment(f"box: {text}"),
            recorder=self.recorder,
            supervisor=self.supervisor,
            tpm=self._make_tpm(out / "tpm"),
            board=self.settings.board,
        )

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.durations_s[name] = time.monotonic() - begin

    def versions(self) -> dict[str, str]:
        """Return the versions of what was tested."""
        names = ("version", "flavour", "board", "roothash")
        found = {name: str(self.image[name]) for name in names if name in self.image}
        if self._surroundings is not None:
            found["feed"] = str(self._surroundings.feeds.serial)
        return found

    def __repr__(self) -> str:
        return f"Lab({json.dumps(self.versions())})"
