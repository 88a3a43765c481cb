"""Minutes of emulation for each: images that fail in their trial, and three firmwares in a row with traffic flowing.

Every trial ends on the slot before, and the portal says which version was attempted, which slot runs, and why.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_lab.addresses import PC1, PC2, WEB
from omamori_lab.box import FORWARDING, PROTECTING, RELEASE
from omamori_lab.firmware_desk import PublishedFirmware
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.scenes.failures import ask_dangerous
from omamori_lab.scenes.scene import check_once
from omamori_lab.settings import SERIAL, LabSettings
from omamori_lab.web_content import BIG_FILE

from .bad_images import BAD_IMAGES, BadImage, build_image, slug
from .outcome_table import Outcome

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(3000),
]

_ALWAYS = {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"}
_FETCH_TIMEOUT_S = 400.0
_BOOT_TIMEOUT_S = 240.0
_TOLD_TIMEOUT_S = 240.0
_BACK = RELEASE.replace("[AB]", "A")
# Who it is and how it shall be; keys and certificates are told apart, never shown.
_KEPT = "cd /var/lib/omamori && sha256sum identity/* desired/document.cose; cat migration/version 2>/dev/null || echo 1"


class Trials:
    """A box that keeps firmware A and is given one after the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.desk = lab.surroundings.firmware

    def build(self, change: Callable[[Path], None], version: str, work: Path) -> Path:
        """Build an image from changed sources."""
        settings = self.lab.settings
        return build_image(change, version, base=settings.image, keys=settings.keys, work=work)

    def want(self, version: str, **changes: Any) -> None:
        """Let the box have a firmware, at once."""
        settings = {
            "version": version,
            "window": _ALWAYS,
            "max_wait_s": 0,
            "metered": "never",
            "rate_kbps": 0,
            "owner_refuses_scheduled": False,
        }
        self.lab.surroundings.desired.publish(firmware=settings | changes)

    def await_state(self, mark: int, version: str, state: str, timeout_s: float) -> str:
        """Wait until the console tells a state; return the reason."""
        line = rf"omamori: firmware version={re.escape(version)} state={state} slot=(?P<slot>\w) reason=(?P<reason>\S+)"
        return self.lab.box.await_line(line, timeout_s=timeout_s, since=mark)["reason"]

    def await_update(self, version: str, state: str) -> dict[str, Any]:
        """Wait until the portal tells a state; return what it says."""
        box = self.lab.portal.await_box(
            SERIAL,
            lambda box: (
                box["update"] is not None and (box["update"]["version"], box["update"]["state"]) == (version, state)
            ),
            timeout_s=_TOLD_TIMEOUT_S,
        )
        return dict(box["update"])


@contextlib.contextmanager
def _fresh(tmp_path: Path) -> Iterator[Trials]:
    lab = Lab(LabSettings(state=tmp_path / "lab", page_port=0))
    with lab.running():
        lab.boot()
        yield Trials(lab)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with _fresh(tmp_path_factory.mktemp("trials")) as made:
        yield made


@pytest.mark.parametrize("image", BAD_IMAGES, ids=lambda image: slug(image.name))
def test_bad_image_ends_on_the_slot_before(
    trials: Trials, image: BadImage, outcomes: list[Outcome], tmp_path: Path
) -> None:
    box = trials.lab.box
    version = trials.desk.next_version()
    built = trials.build(image.spoil, version, tmp_path)
    release = trials.desk.publish_image(built, is_kept=False)
    mark = box.restarts_by_itself()
    trials.want(version)
    trials.await_state(mark, version, "verified", _FETCH_TIMEOUT_S)
    kept = box.shell(_KEPT).output
    mark = box.restarts_by_itself()
    first = box.await_line(RELEASE, timeout_s=_BOOT_TIMEOUT_S, since=mark)
    assert (first["version"], first["slot"]) == (version, "B")
    trial = box.console.mark()
    if image.console:
        box.await_line(image.console, timeout_s=image.trial_s, since=mark)
    second = box.await_line(_BACK, timeout_s=image.trial_s, since=trial)
    assert second["version"] != version
    assert trials.await_state(trial, version, "rolled-back", _BOOT_TIMEOUT_S) in image.reasons
    box.await_line(PROTECTING, timeout_s=_BOOT_TIMEOUT_S, since=trial)
    assert box.shell(_KEPT).output == kept
    _check_told(trials, release, image.name, image.reasons, outcomes)


_FIND = (
    "import fcntl, struct; file = open('/run/other/usr/lib/systemd/systemd', 'rb'); "
    "print(struct.unpack('i', fcntl.ioctl(file, 1, struct.pack('i', 0)))[0] * 4096 + 64)"
)
_SPOIL = (
    "import os; disk = open('{device}', 'r+b', buffering=0); disk.seek({offset}); byte = disk.read(1); "
    "disk.seek(-1, 1); disk.write(bytes([byte[0] ^ 1])); os.fsync(disk)"
)


@pytest.mark.parametrize("part", ["root", "boot"])
def test_disk_that_loses_a_bit_after_the_installation(
    trials: Trials, part: str, outcomes: list[Outcome], tmp_path: Path
) -> None:
    """In the root file system dm-verity finds it, in the kernel image the machine's own firmware."""
    box = trials.lab.box
    version = trials.desk.next_version()
    built = trials.build(lambda _tree: None, version, tmp_path)
    release = trials.desk.publish_image(built, is_kept=False)
    mark = box.restarts_by_itself()
    # Not before somebody allows it: the disk has to be damaged first.
    far = 1 << (dt.datetime.now(dt.UTC).weekday() + 3) % 7
    trials.want(version, window=_ALWAYS | {"days": far, "length_min": 1}, max_wait_s=30 * 86400)
    trials.await_state(mark, version, "reboot-pending", _FETCH_TIMEOUT_S)
    if part == "root":
        box.shell("mkdir -p /run/other; mount -t erofs -o ro /dev/omamori/root_b /run/other")
        offset = int(box.shell(f'python3 -c "{_FIND}"').output)
        box.shell("umount /run/other")
        device, name, reason = "/dev/omamori/root_b", "a bit of the first program is wrong", "interrupted"
    else:
        offset = 4 << 20  # amid the one file that is there
        device, name, reason = "/dev/omamori/slot_b", "a bit of the signed kernel image is wrong", "not-started"
    assert box.shell(f'python3 -c "{_SPOIL.format(device=device, offset=offset)}"').exit_code == 0
    mark = box.restarts_by_itself()
    trials.want(version)
    if part == "root":
        first = box.await_line(RELEASE, timeout_s=_BOOT_TIMEOUT_S, since=mark)
        assert (first["version"], first["slot"]) == (version, "B")
        block = offset // 4096
        box.await_line(rf"verity: .* data block {block} is corrupted", timeout_s=_BOOT_TIMEOUT_S, since=mark)
    box.await_line(_BACK, timeout_s=_BOOT_TIMEOUT_S, since=mark)
    assert trials.await_state(mark, version, "rolled-back", _BOOT_TIMEOUT_S) == reason
    _check_told(trials, release, name, frozenset({reason}), outcomes)


def _check_told(
    trials: Trials, release: PublishedFirmware, name: str, reasons: frozenset[str], outcomes: list[Outcome]
) -> None:
    told = trials.await_update(release.version, "rolled-back")
    assert told["reason"] in reasons
    assert told["running"]["slot"] == "A"
    assert told["running"]["version"] != release.version
    facts = trials.lab.box.shell("cat /run/omamori/firmware/boot.json").output
    assert '"slot":"A","committed":"A","is_trial":false' in facts
    assert trials.lab.client(PC1.name).get(f"http://{WEB.ipv4}/").complete
    outcomes.append(Outcome(name, release.version, "rolled-back", "A", f"{told['reason']}: {told['detail']}"))


def test_three_firmwares_in_a_row_with_traffic_flowing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A, B, C: nothing is lost but the time of two restarts: no connection over them, no alert from before."""
    with _fresh(tmp_path) as trials:
        lab, box = trials.lab, trials.lab.box
        kept = "sha256sum /var/lib/omamori/identity/*; cat /var/lib/omamori/address/* 2>/dev/null"
        identity = box.shell(kept).output
        feed = lab.portal.box(SERIAL)["feed"]["serial"]
        lines, asked = [], list[str]()
        broker = lab.surroundings.services["mosquitto"]
        for slot in ("B", "A"):
            release = trials.desk.publish_next()
            mark = box.restarts_by_itself()
            url = f"http://web.example/{BIG_FILE}"
            with (
                concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool,
                lab.client(PC1.name).pinging(WEB.ipv4) as pings,
            ):
                trials.want(release.version)
                trials.await_state(mark, release.version, "verified", _FETCH_TIMEOUT_S)
                # What nobody could be told yet goes through the restart with the rest of the data.
                broker.stop()
                asked += ask_dangerous(lab, Checklist(), f"to-{slot.lower()}-", release.version.replace(".", "-"))
                trials.await_state(mark, release.version, "reboot-pending", _FETCH_TIMEOUT_S)
                options = ["-4", "--limit-rate", "200k"]
                download = pool.submit(lab.client(PC2.name).get, url, timeout_s=400, options=options)
                first = box.await_line(RELEASE, timeout_s=_BOOT_TIMEOUT_S, since=mark)
                assert (first["version"], first["slot"]) == (release.version, slot)
                broker.start()
                box.await_line(FORWARDING, timeout_s=_BOOT_TIMEOUT_S, since=mark)
                assert trials.await_state(mark, release.version, "committed", 2 * _BOOT_TIMEOUT_S) == "-"
                got = download.result()
            summary = pings.stop()
            lost_s = (summary.sent - summary.received) * 0.2
            lines.append(
                f"to {release.version} in slot {slot}: {lost_s:.1f} s without forwarding ({summary}); "
                f"a TCP connection that lay over the restart: {got}"
            )
            told = lab.portal.await_box(
                SERIAL, lambda box, release=release: box["firmware"] == release.version, timeout_s=_TOLD_TIMEOUT_S
            )
            assert told["slot"] == slot
            assert told["feed"]["serial"] == feed
            assert box.shell(kept).output == identity
            assert got.complete, str(got)
            assert lost_s < 120
        told_once = Checklist()
        check_once(lab, told_once, asked, timeout_s=_TOLD_TIMEOUT_S)
        assert not [check for check in told_once.checks if not check.ok]
        with capsys.disabled():
            print("\n" + "\n".join(lines))
