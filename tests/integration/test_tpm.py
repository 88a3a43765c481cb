"""A key in a real TPM (in software), with the image's Python and OpenSSL: enrolment and renewal over mutual TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess  # noqa: TID251 - the TPM and the box are programs of another tree
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.recipe import source_tree
from omamori_firmware.software_tpm import tpm_tree
from omamori_firmware.tools import ToolsTree
from omamori_ota import keys
from omamori_ota.attempts import Cause
from omamori_ota.clock import system_clock
from omamori_ota.enrolment_service import make_server
from omamori_ota.keys import KeyDirectory
from omamori_ota.roles import Lifetimes

from .cloud_rig import wait_for
from .test_ota_enrolment import SERIAL
from .test_ota_renewal import Site

pytestmark = [pytest.mark.root, pytest.mark.long]
TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree() -> ToolsTree:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return tpm_tree(source_tree(), Cache(default_directory()))


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> KeyDirectory:
    return keys.init(tmp_path_factory.mktemp("operator") / "keys", system_clock, Lifetimes())


@contextlib.contextmanager
def software_tpm(tree: ToolsTree, folder: Path) -> Iterator[str]:
    """Give the address of a TPM in the words of tpm2-tss."""
    folder.mkdir(exist_ok=True)
    socket = folder / "tpm"
    line = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}"]
    line += ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl"]
    line += ["--flags", "not-need-init,startup-clear"]
    with subprocess.Popen(tree.command(line, binds=[folder])) as process:
        try:
            wait_for(lambda: socket.exists() and Path(f"{socket}.ctrl").exists(), "the TPM")
            yield f"swtpm:path={socket}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            for left in (socket, Path(f"{socket}.ctrl")):
                left.unlink(missing_ok=True)


class Box:
    """A box whose identity worker takes one step at a time, each in a new process."""

    def __init__(self, site: Site, tree: ToolsTree, place: Path) -> None:
        self._site, self._tree, self._place = site, tree, place
        self.identity = place / "identity"
        self.after = timedelta(0)
        facts = {
            "format": 1,
            "serial": SERIAL,
            "claim": site.claim,
            "enrolment_url": f"https://127.0.0.1:{site.port}",
            "broker": {"host": "broker.example.com", "port": 8883},
            "repository_url": "https://repo.example.com",
            "channel": "demo",
        }
        (place / "provision.json").write_text(json.dumps(facts))

    def step(self, tcti: str) -> dict[str, Any]:
        facts = {
            "provision": str(self._place / "provision.json"),
            "identity": str(self.identity),
            "service_ca": str(self._site.keys.path / "trust/service-ca.pem"),
            "tcti": tcti,
            "now_s": (system_clock() + self.after).timestamp(),
        }
        line = ["python3", str(TOP / "tests/sim/tpm_box.py"), json.dumps(facts)]
        binds = [TOP / "agent", TOP / "protocol", TOP / "tests/sim", self._place, self._site.keys.path]
        path = os.pathsep.join(str(TOP / name) for name in ("agent", "protocol"))
        ran = subprocess.run(
            self._tree.command(line, binds=binds),
            capture_output=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert ran.returncode == 0, ran.stderr.decode()
        told: dict[str, Any] = json.loads(ran.stdout)
        return told

    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates((self.identity / "device.crt").read_bytes())[0]


def test_box_with_a_tpm_enrols_and_renews_and_its_key_is_worth_nothing_elsewhere(
    tree: ToolsTree, operator: KeyDirectory, tmp_path: Path
) -> None:
    site = Site(tmp_path, operator)
    with make_server(site.config(), site.clock) as server:
        site.server = server
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        try:
            box = Box(site, tree, tmp_path)
            with software_tpm(tree, tmp_path / "tpm-1") as tcti:
                told = box.step(tcti)
                assert told["lines"] == [f"enrolled device={SERIAL}"]
                assert told["python"].startswith("3.13.")
                key = (box.identity / "device.key").read_bytes()
                assert key.startswith(b"-----BEGIN TSS2 PRIVATE KEY-----")
                first = box.certificate()
                assert told["grown_kib"] < 16 * 1024
            # The board was without power; the TPM has kept what it knows. Two thirds of the certificate's life pass.
            box.after = site.later = timedelta(days=69)
            with software_tpm(tree, tmp_path / "tpm-1") as tcti:
                told = box.step(tcti)
            second = box.certificate()
            assert second.not_valid_after_utc - first.not_valid_after_utc > timedelta(days=60)
            assert second.public_key() == first.public_key()
            assert set(site.causes()) == {Cause.ENROLLED}
            # Somebody copies the data partition.
            with software_tpm(tree, tmp_path / "tpm-2") as tcti:
                told = box.step(tcti)
            assert told["expires_s"] is None
            assert told["lines"] == []
            assert (box.identity / "device.key").read_bytes() == key
            # And here it works again.
            with software_tpm(tree, tmp_path / "tpm-1") as tcti:
                assert box.step(tcti)["expires_s"] == int(second.not_valid_after_utc.timestamp())
        finally:
            server.shutdown()
            worker.join()
