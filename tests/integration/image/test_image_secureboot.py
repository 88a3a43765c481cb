"""Another key for kernel images, as boxes live through it: added, used, and the old one revoked, by the box itself."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from omamori_firmware import disk as layout
from omamori_firmware import factory
from omamori_firmware.build import STAGES, Builder, BuildRequest
from omamori_firmware.cache import Cache
from omamori_firmware.files import copy_sparse
from omamori_firmware.progress import Reporter
from omamori_firmware.qemu import prepare
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import load_board
from omamori_ota.firmware import secureboot_keys
from omamori_ota.firmware.bundle_keys import load_certificate
from sim.box import provision_body

pytestmark = [pytest.mark.image, pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1800)]
SIZES = load_board(source_tree().boards / "x86_64-uefi").disk
RELEASE = r"omamori: release version=(?P<version>\S+) flavour=dev slot=(?P<slot>\w)"
DB, DBX = (f"/sys/firmware/efi/efivars/{name}-d719b2cb-3d3a-4596-a3bc-dad00e67656f" for name in ("db", "dbx"))
# Waits until the service has looked at this start, and says what became of it.
LOOK = (
    'timeout 150 sh -c \'until systemctl show -p SubState omamori-secureboot | grep -qE "exited|failed"; do sleep 1;'
    " done'; systemctl show -p Result --value omamori-secureboot; journalctl -o cat -b -u omamori-secureboot"
)


def clock() -> datetime:
    return datetime.now(UTC)


def serial(certificate: Path) -> bytes:
    """Return bytes by which a certificate is found in a variable."""
    return load_certificate(certificate).public_bytes(Encoding.DER)[-64:]


def variable(box: Any, path: str) -> bytes:
    text = box.shell(f"[ -e {path} ] && od -An -v -tx1 {path}", timeout_s=60)
    return bytes.fromhex("".join(text.split()))


def make(keys: Path, version: str, out: Path, cache: Cache, sources: SourceTree) -> Path:
    request = BuildRequest(
        board="x86_64-uefi",
        flavour="dev",
        trust=keys / "trust",
        signing_key=keys / "secureboot" / "db.key",
        out=out,
        version=version,
        allow_drift=True,
    )
    with pytest.MonkeyPatch.context() as environment, Reporter(total=STAGES, quiet=True) as reporter:
        environment.setenv("SOURCE_DATE_EPOCH", "1800000000")
        Builder(sources, cache, reporter).build(request)
    return out


def fill(image: Path, disk: Path, slot: str) -> None:
    """Write a slot as an installation does."""
    for name, part in (("boot.vfat", "slot"), ("root.erofs", "root"), ("root.verity", "verity")):
        copy_sparse(image / name, disk, offset=layout.find(SIZES, f"{part}_{slot}").start)


def test_a_box_goes_over_to_another_key(  # type: ignore[no-untyped-def]
    boot, keys: Path, cache: Cache, sources: SourceTree, tools: ToolsTree, tmp_path: Path
) -> None:
    own = tmp_path / "keys"
    shutil.copytree(keys, own)
    secureboot_keys.prepare(own, clock)
    first = make(own, "1.0.0-dev.1", tmp_path / "first", cache, sources)
    secureboot_keys.adopt(own)
    secureboot_keys.retire(own, clock)
    second = make(own, "1.0.1-dev.1", tmp_path / "second", cache, sources)
    new, old = serial(own / "secureboot/db.crt"), serial(keys / "secureboot/db.crt")

    disk, variables = tmp_path / "disk.raw", tmp_path / "vars.fd"
    # With its provisioning: an agent without it fails, and that ends a trial.
    (tmp_path / "provision.json").write_text(json.dumps(provision_body()))
    factory.personalise(first, tmp_path / "provision.json", disk, tools, cache)
    shutil.copyfile(first / "vars.fd", variables)
    fill(second, disk, "b")
    box = boot(disk, variables)
    assert box.wait(RELEASE)["version"] == "1.0.0-dev.1"
    seen = box.shell(LOOK, timeout_s=240)
    assert seen.startswith("success\n"), seen
    added = variable(box, DB)
    assert old in added
    assert new in added
    assert old not in variable(box, DBX)

    # The second image, signed with the new key alone, is tried as after an installation.
    mark = len(box.said())
    box.shell("/usr/lib/omamori/slots/omamori-slots set-primary B; systemctl --no-block reboot", timeout_s=60)
    tried = box.wait(RELEASE, since=mark, timeout_s=240)
    assert (tried["version"], tried["slot"]) == ("1.0.1-dev.1", "B")
    assert "active" not in box.shell("systemctl is-active omamori-secureboot").split(), "nothing changes in a trial"
    box.shell("/usr/lib/omamori/slots/omamori-slots set-state B good")
    seen = box.shell(LOOK, timeout_s=240)
    assert "slot A is signed with what shall be revoked" in seen
    assert old not in variable(box, DBX)

    # The next release takes the place of the last one that is signed with the old key.
    copy = "for part in slot root verity; do dd if=/dev/omamori/${part}_b of=/dev/omamori/${part}_a bs=1M; done 2>&1"
    assert not re.search("(?i)error|denied", box.shell(copy, timeout_s=240))
    box.shell("sync; systemctl restart omamori-secureboot", timeout_s=120)
    assert old in variable(box, DBX)
    box.machine.kill()

    # What is signed with the old key does not start on this machine any more, the new one does.
    other, _ = prepare(first, tmp_path / "other")
    mark = len(box.said())
    stale = boot(other, variables)
    stale.wait("(?i)Access Denied|Security Violation", timeout_s=120, since=mark)
    assert "omamori: release" not in stale.said()[mark:]
    stale.machine.kill()
    mark = len(stale.said())
    again = boot(disk, variables)
    assert again.wait(RELEASE, since=mark, timeout_s=240)["version"] == "1.0.1-dev.1"
