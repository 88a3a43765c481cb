"""Puts Wi-Fi settings into force, or leaves the previous ones in force and says why.

Order of things:
1. everything that can be judged without touching the radio is judged first (settings, country, channel, radio): a
   refusal here disconnects nobody;
2. the configuration is written (memory only, readable by hostapd alone), the running hostapd is asked to end, and the
   service manager starts it again with the new file;
3. hostapd itself has to say that the access point is up with the wanted name and channel; if it does not, the
   previous file comes back, and the settings are refused.

The last file that worked is also kept on the data partition, beside the signed document that holds the same secrets:
so a restart of the box under settings that are refused ends with the previous access point, not with none. Asked for
what is in force already, nothing changes: a restart of the agent disconnects no station. The passphrase is in these
two files and nowhere else: no message, argument or report carries it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, write_atomic
from omamori_protocol.desired import WifiSettings
from omamori_protocol.errors import ProtocolError

from .errors import HostapdError, HostapdGoneError, WifiRefusedError
from .hostapd import AccessPointStatus, HostapdSession, control_sockets
from .hostapd_config import (
    AUTOMATIC,
    MAX_CONFIG_BYTES,
    AccessPoint,
    render_config,
    run_of,
    survey_channels,
)
from .radio import Radio
from .regulatory import RegulatoryDatabase

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_CONFIG_MODE = 0o640  # the directory gives it hostapd's group


@dataclasses.dataclass(frozen=True, kw_only=True)
class WifiLimits:
    """How long things may take, in seconds."""

    start_s: float = 20.0  # until a new process answers; the service manager waits half a second before it starts one
    enable_s: float = 30.0  # until the access point is up; a survey of the channels takes some seconds
    stop_s: float = 10.0  # until a process that was asked to end has ended


class WifiSwitch:
    """Switches the access point of the box; a call may take a minute.

    Args:
        radio: The radio.
        point: Where the access point works.
        config: Path of hostapd's configuration; its directory exists and belongs to us.
        kept: Path of the last configuration that worked, on the data partition.
        regulations: Returns the regulatory database; asked when settings come.
        limits: Times.
        clock: Monotonic time; a parameter for tests.
        sleep: Waits; a parameter for tests.
    """

    def __init__(
        self,
        radio: Radio,
        point: AccessPoint,
        config: Path,
        kept: Path,
        regulations: Callable[[], RegulatoryDatabase],
        *,
        limits: WifiLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._radio = radio
        self._point = point
        self._config = config
        self._kept = kept
        self._regulations = regulations
        self._limits = limits or WifiLimits()
        self._clock = clock
        self._sleep = sleep

    def apply(self, settings: WifiSettings | None) -> None:
        """Make the access point as `settings` say; None means that there shall be none.

        Raises:
            WifiRefusedError: It cannot be like that; the access point is as it was before.
            HostapdError: The access point could not be ended; asking again may help.
        """
        if settings is None or not settings.enabled:
            self._kept.unlink(missing_ok=True)
            self._switch_off()
            return
        try:
            allowed = self._judge(settings)
        except WifiRefusedError as err:
            raise WifiRefusedError(f"{err}{self._resume()}") from err
        if self._is_in_force(settings, allowed):
            self._keep()
            return
        previous = _read(self._config) or _read(self._kept)
        try:
            self._put_into_force(settings, allowed)
        except (HostapdError, OSError) as err:
            wanted = "a free channel" if settings.channel == AUTOMATIC else f"channel {settings.channel}"
            about = f"the access point did not start on {wanted} in {settings.country}: {_plain(err)}"
            raise WifiRefusedError(about + self._go_back(previous)) from err
        self._keep()
        logger.info("access point is up, country %s", settings.country)

    def status(self) -> AccessPointStatus | None:
        """Return what the access point does now; None when there is none."""
        for path in self._running():
            try:
                with self._session(path) as session:
                    return session.status()
            except HostapdError:
                continue
        return None

    def stations(self) -> list[str]:
        """Return the MAC addresses of the connected stations; empty when there is no access point."""
        for path in self._running():
            try:
                with self._session(path) as session:
                    return session.stations()
            except HostapdError:
                continue
        return []

    # -- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, settings: WifiSettings) -> tuple[int, ...]:
        """Return the channels that are allowed; raise if the settings cannot work on this box."""
        try:
            settings.to_body()  # the bounds of every field
        except ProtocolError as err:
            raise WifiRefusedError(f"not acceptable: {err}") from err
        try:
            regulations = self._regulations()
            allowed = regulations.channels(settings.country)
        except SetupError as err:
            raise WifiRefusedError(f"the rules of radio use are not known: {err}") from err
        if settings.country not in regulations.countries:
            raise WifiRefusedError(f"country {settings.country} is not known")
        if not allowed:
            raise WifiRefusedError(f"country {settings.country} allows no channel for an access point")
        if settings.channel not in (AUTOMATIC, *allowed):
            raise WifiRefusedError(f"channel {settings.channel} is not allowed in {settings.country}, {_list(allowed)}")
        if not self._radio.await_present():
            raise WifiRefusedError("this box has no Wi-Fi radio")
        if self._radio.is_switched_off():
            raise WifiRefusedError("the Wi-Fi radio is switched off at the machine itself")
        return allowed

    def _is_in_force(self, settings: WifiSettings, allowed: tuple[int, ...]) -> bool:
        current = _read(self._config)
        run = run_of(current) if current is not None else None
        if current is None or run is None:
            return False
        for channel in self._channels(settings, allowed):
            if render_config(settings, self._point, run=run, channel=channel, allowed=allowed) == current:
                try:
                    self._await_up(run, settings.ssid.encode(), channel, allowed)
                except HostapdError:
                    return False
                return True
        return False

    @staticmethod
    def _channels(settings: WifiSettings, allowed: tuple[int, ...]) -> tuple[int, ...]:
        """Return what to try, in this order: not every radio can survey the channels."""
        if settings.channel != AUTOMATIC:
            return (settings.channel,)
        return (AUTOMATIC, survey_channels(allowed)[0])

    # -- acting -------------------------------------------------------------------------------------------------------

    def _put_into_force(self, settings: WifiSettings, allowed: tuple[int, ...]) -> None:
        failure: HostapdError | None = None
        for channel in self._channels(settings, allowed):
            run = secrets.token_hex(8)
            config = render_config(settings, self._point, run=run, channel=channel, allowed=allowed)
            self._write_config(config)
            try:
                self._await_up(run, settings.ssid.encode(), channel, allowed)
            except HostapdError as err:
                failure = err
                continue
            return
        assert failure is not None  # there is at least one channel to try
        raise failure

    def _go_back(self, previous: bytes | None) -> str:
        """Put the previous configuration back; return what to add to the reason."""
        run = run_of(previous) if previous is not None else None
        try:
            if previous is None or run is None:
                self._switch_off()
                return "; there is no access point, as before"
            self._write_config(previous)
            self._await_up(run, None, None, ())
        except (HostapdError, OSError):
            logger.exception("the previous access point did not come back")
            return "; the previous settings did not come back either"
        return "; the previous settings are in force"

    def _resume(self) -> str:
        """After a restart of the box: bring back what worked before; return what to add to a reason."""
        kept = _read(self._kept)
        if _read(self._config) is not None or kept is None or not self._radio.is_present():
            return ""
        return self._go_back(kept)

    def _keep(self) -> None:
        """Keep the configuration in force for the next start of the box."""
        config = _read(self._config)
        if config is None or config == _read(self._kept):
            return
        try:
            write_atomic(self._kept, config, mode=0o600)
        except OSError as err:
            logger.warning("the access point's settings are not kept: %s", err.strerror or err)

    def _switch_off(self) -> None:
        """Leave no hostapd and no configuration."""
        if _read(self._config) is None and not self._running():
            return
        self._config.unlink(missing_ok=True)
        self._end_others(None)
        logger.info("access point is off")

    def _end_others(self, run: str | None) -> None:
        """End every hostapd that was not started with `run`."""
        for path in self._running():
            if path.parent.name != run:
                with contextlib.suppress(HostapdGoneError):
                    self._end(path)

    def _end(self, path: Path) -> None:
        """Ask a hostapd to end and wait until it has.

        Raises:
            HostapdGoneError: It has.
            HostapdError: It does not.
        """
        with self._session(path) as session:
            session.terminate()
        deadline = self._clock() + self._limits.stop_s
        with self._session(path, timeout_s=_POLL_S) as session:
            while self._clock() <= deadline:
                session.is_alive()
                self._sleep(_POLL_S)
        raise HostapdError("hostapd does not end")

    def _await_up(self, run: str, ssid: bytes | None, channel: int | None, allowed: tuple[int, ...]) -> None:
        """Wait until the process of `run` says that the access point is up, as it shall be; end any other.

        Raises:
            HostapdError: It did not start, gave up, or is up with other values.
        """
        path = self._point.control / run / self._point.interface
        deadline = self._clock() + self._limits.start_s
        while not self._answers(path):
            self._end_others(run)  # also one that was still starting with the old file
            if self._clock() > deadline:
                raise HostapdError("hostapd does not start")
            self._sleep(_POLL_S)
        deadline = self._clock() + self._limits.enable_s
        with self._session(path) as session:
            while (status := session.status()).state != "ENABLED":
                if status.state == "DISABLED" or self._clock() > deadline:
                    raise HostapdError(f"the radio stays in the state {status.state[:32]}")
                self._sleep(_POLL_S)
        is_channel_right = {None: True, AUTOMATIC: status.channel in survey_channels(allowed)}.get(
            channel, status.channel == channel
        )
        if ssid not in (None, status.ssid) or not is_channel_right or not status.is_ht or status.is_newer:
            raise HostapdError(f"it came up with other values (channel {status.channel})")

    def _answers(self, path: Path) -> bool:
        try:
            with self._session(path, timeout_s=1.0) as session:
                return session.is_alive()
        except HostapdGoneError:
            return False

    # -- files --------------------------------------------------------------------------------------------------------

    def _running(self) -> list[Path]:
        if self._point.interface == "":
            return []
        return control_sockets(self._point.control, self._point.interface)

    @staticmethod
    def _session(path: Path, *, timeout_s: float = 5.0) -> HostapdSession:
        return HostapdSession(path, timeout_s=timeout_s)

    def _write_config(self, config: bytes) -> None:
        write_atomic(self._config, config, mode=_CONFIG_MODE)


def _read(path: Path) -> bytes | None:
    try:
        return read_bounded(path, MAX_CONFIG_BYTES)
    except (FileNotFoundError, SetupError):
        return None


def _list(channels: tuple[int, ...]) -> str:
    return f"only {channels[0]} to {channels[-1]}" if len(channels) > 1 else f"only {channels[0]}"


def _plain(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot write its settings ({error.strerror or error})"
    return str(error)
