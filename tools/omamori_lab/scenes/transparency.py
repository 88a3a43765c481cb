"""Ordinary traffic: arrives bit for bit, and nothing about the packets changes on the way."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage

from omamori_lab import addresses
from omamori_lab.addresses import MAIL, PC1, WEB
from omamori_lab.capture import Capture
from omamori_lab.frames import Header
from omamori_lab.lab import Lab
from omamori_lab.portal import brief, identity
from omamori_lab.raw_port import opened, pass_frames
from omamori_lab.results import Checklist
from omamori_lab.topology import LAN_TAP, TERMINAL_PORT, WAN_TAP
from omamori_lab.waiting import wait_for
from omamori_lab.web_content import BIG_BYTES, BIG_FILE
from omamori_lab.wire_frames import INTERNET, NEVER_FORWARDED, OFFICE, REFUSED_BY_FILTER, frames, is_same

from .scene import Title

_PINGS = 10
_FRAME_TIMEOUT_S = 3.0
_DOWNLOAD_TIMEOUT_S = 150.0  # inspected by an emulated processor on a busy machine, 24 s where nothing else runs
_TTL = 61


def of_terminal(headers: set[Header]) -> set[Header]:
    """Return the headers of unicast packets from and to the terminal that the scene is about."""
    mine = {PC1.ipv4, PC1.ipv6}
    return {
        header
        for header in headers
        if (header.source in mine or header.target in mine) and not header.target.startswith("ff")
    }


class TransparentScene:
    """An office PC uses the internet."""

    name = "transparent"
    title = Title("ふだんの通信はそのまま通る", "ordinary traffic passes unchanged")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Resolve, download, ping, mail, and compare captures from both sides of the box."""
        known = lab.known_alerts()
        inside, outside = lab.surroundings.topology.terminals[PC1.name], lab.surroundings.internet
        with Capture(inside, TERMINAL_PORT) as office, Capture(outside, WAN_TAP) as internet:
            self._names(lab, checks)
            self._downloads(lab, checks)
            self._pings(lab, checks)
            self._mail(lab, checks)
        false_alarms = [brief(alert) for alert in lab.portal.alerts() if identity(alert) not in known]
        checks.equal("alerts about ordinary traffic", [], false_alarms)
        seen_inside, seen_outside = of_terminal(office.headers), of_terminal(internet.headers)
        changed = seen_inside ^ seen_outside
        checks.add(
            "addresses, TTL, MAC on both sides",
            expected=f"the same {len(seen_inside)} headers",
            seen="the same" if not changed else f"{len(changed)} differ: {sorted(map(str, changed))[:2]}",
            ok=not changed and len(seen_inside) > 6,
        )
        checks.add(
            "ping frames on both sides",
            expected=f"the same {2 * _PINGS} frames",
            seen=f"{len(office.pings & internet.pings)} equal, {len(office.pings ^ internet.pings)} differ",
            ok=office.pings == internet.pings and len(office.pings) == 2 * _PINGS,
        )
        self._frames(lab, checks)

    def _frames(self, lab: Lab, checks: Checklist) -> None:
        """Every kind of frame straight into one port of the box, and out of the other."""
        topology = lab.surroundings.topology
        inside, outside = (topology.office, LAN_TAP), (topology.internet, WAN_TAP)
        for way, near, far, begin, end in (
            ("out", OFFICE, INTERNET, inside, outside),
            ("in", INTERNET, OFFICE, outside, inside),
        ):
            sent = [frame for frame in frames(near, far) if frame.name not in NEVER_FORWARDED | REFUSED_BY_FILTER]
            with opened(*begin) as sender, opened(*end) as receiver:
                seen = pass_frames(sender, receiver, sent, timeout_s=_FRAME_TIMEOUT_S)
            changed = [frame.name for frame in sent if not is_same(frame.data, seen[frame.name])]
            checks.add(
                f"kinds of frames, {way}",
                expected=f"all {len(sent)} unchanged",
                seen="unchanged" if not changed else f"{len(changed)} lost or changed: {changed[:6]}",
                ok=not changed,
            )

    def _names(self, lab: Lab, checks: Checklist) -> None:
        pc = lab.client(PC1.name)
        checks.equal("DNS web.example", [WEB.ipv4], pc.resolve("web.example", server=addresses.ROUTER_IPV4, kind="A"))

    def _downloads(self, lab: Lab, checks: Checklist) -> None:
        pc = lab.client(PC1.name)
        expected = (BIG_BYTES, lab.surroundings.big_file_sha256)
        for name, url in (
            ("HTTP 20 MB", f"http://web.example/{BIG_FILE}"),
            ("HTTPS 20 MB", f"https://web.example/{BIG_FILE}"),
            ("HTTP 20 MB by IPv6", f"http://[{WEB.ipv6}]/{BIG_FILE}"),
        ):
            got = pc.get(url, timeout_s=_DOWNLOAD_TIMEOUT_S, options=["-4"] if "[" not in url else [])
            same = got.complete and (got.size, got.sha256) == expected
            checks.add(name, expected="bit for bit", seen=f"{'same hash' if same else 'differs'}: {got}", ok=same)

    def _pings(self, lab: Lab, checks: Checklist) -> None:
        summary = lab.client(PC1.name).ping(WEB.ipv4, count=_PINGS, ttl=_TTL)
        checks.equal("ping", _PINGS, summary.received)

    def _mail(self, lab: Lab, checks: Checklist) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "a@office.example", "b@mail.example", "見積もり"
        mail.set_content("よろしくお願いします。\n")
        before = len(lab.surroundings.mailbox.mails)

        def send() -> None:
            with smtplib.SMTP(MAIL.ipv4, 25, local_hostname=f"{PC1.name}.office.example", timeout=15) as server:
                server.send_message(mail)

        lab.surroundings.topology.terminals[PC1.name].call(send)
        mails = wait_for(lambda: lab.surroundings.mailbox.mails[before:], "the mail in the mailbox", timeout_s=10)
        sent = mail.as_bytes().replace(b"\r\n", b"\n").strip()
        checks.add(
            "mail",
            expected="arrives unchanged",
            seen="unchanged" if mails[0].content.replace(b"\r\n", b"\n").strip() == sent else mails[0].content[:200],
            ok=mails[0].content.replace(b"\r\n", b"\n").strip() == sent,
        )
