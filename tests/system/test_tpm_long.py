"""Minutes of emulation: a board with a TPM. The box's key is made in it, stays in it, and is of no use without it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from omamori_lab.box import ENROLLED
from omamori_lab.lab import Lab
from omamori_lab.settings import LabSettings

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(2400),
]
IDENTITY = "/var/lib/omamori/identity"
KEY = "-----BEGIN TSS2 PRIVATE KEY-----"
RSS_KIB = 48 * 1024


@pytest.fixture
def port() -> None:
    """Keep the session's lab, which has no TPM, from being opened for its console."""


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(LabSettings(state=tmp_path_factory.mktemp("tpm"), page_port=0, tpm=True))
    with made.running():
        yield made


def said(lab: Lab, command: str) -> list[str]:
    return lab.box.shell(command, timeout_s=60).output.split("\n")


def until(lab: Lab, command: str) -> str:
    """Return what a command says as soon as it succeeds in the guest."""
    quoted = command.replace("'", "'\\''")
    result = lab.box.shell(f"timeout 120 sh -c 'until {quoted}; do sleep 1; done'", timeout_s=150)
    assert result.exit_code == 0, f"waited in vain for: {command}"
    return result.output


def fingerprint(lab: Lab) -> list[str]:
    return said(lab, f"sha256sum {IDENTITY}/device.key {IDENTITY}/device.crt")


def agent_rss_kib(lab: Lab) -> int:
    process = "$(systemctl show -p MainPID --value omamori-agent)"
    return int(said(lab, f"awk '/VmRSS/{{print $2}}' /proc/{process}/status")[0])


def test_the_key_is_made_in_the_tpm_and_stays_there(lab: Lab) -> None:
    first = lab.boot()  # until the portal has it online: enrolled, and logged in to the broker
    enrolled = lab.box.await_line(ENROLLED, timeout_s=30)
    assert enrolled["device"] == lab.serial
    assert said(lab, f"head -1 {IDENTITY}/device.key; stat -c '%U:%a' {IDENTITY}/device.key") == [
        KEY,
        "omamori-agent:600",
    ]
    # Wherever it may have been written: no other key is on the data partition.
    assert said(lab, "grep -rlE 'BEGIN ([A-Z0-9]+ )?PRIVATE KEY' /var") == [f"{IDENTITY}/device.key"]
    # The device is the agent's, and nobody else's.
    assert said(lab, "stat -c '%U:%G:%a' /dev/tpm0 /dev/tpmrm0") == ["root:root:600", "root:omamori-tpm:660"]
    group = said(lab, "grep ^omamori-tpm: /etc/group")[0].split(":")
    assert group[3] == ""
    members = f"for p in /proc/[0-9]*; do grep -qs '^Groups:.*\\b{group[2]}\\b' $p/status && cat $p/cgroup; done"
    assert said(lab, f"{members} | sort -u") == ["0::/system.slice/omamori-agent.service"]
    assert said(lab, "journalctl -b -u omamori-agent --no-pager --quiet --grep 'TPM'") == [""]
    assert agent_rss_kib(lab) <= RSS_KIB
    before = fingerprint(lab)

    # A power cut takes the TPM's power as well. The stored key is opened again and logs in; nothing is enrolled anew.
    lab.box.shell("sync")
    lab.box.cut_power()
    second = lab.boot()
    assert fingerprint(lab) == before
    assert agent_rss_kib(lab) <= RSS_KIB
    assert second.feed_serial >= first.feed_serial

    # The agent alone begins again.
    since = lab.box.console.mark()
    lab.box.shell("systemctl kill -s KILL --kill-whom=main omamori-agent")
    lab.box.await_line(ENROLLED, timeout_s=120, since=since)
    until(lab, "systemctl show -p StatusText --value omamori-agent | grep ', connected'")

    # The disk on another board: it protects the office, and is nobody to the service.
    lab.box.cut_power()
    shutil.rmtree(lab.settings.run / "box" / "tpm")
    since = lab.box.console.mark()
    lab.box.power_on()
    lab.box.await_protecting()
    told = until(lab, "journalctl -b -u omamori-agent -o cat --no-pager --quiet --grep='not enrolled' -n 1 | grep .")
    assert "TPM: does not know the stored key" in told
    assert fingerprint(lab) == before, "it waits for its own TPM, and makes no other key"
    assert not [line.text for line in lab.box.console.since(since) if re.search(ENROLLED, line.text)]
