"""Sites by name: dangerous ones are blocked whichever way they are asked for, categories are noted."""

from __future__ import annotations

from omamori_lab import addresses
from omamori_lab.addresses import DANGEROUS, NEIGHBOUR_DOMAIN, PC1, PC2, PC3, WEB
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist

from .scene import BLOCKED_TIMEOUT_S, Title, check_alerts, together

_DNS = addresses.ROUTER_IPV4


class DangerousSiteScene:
    """Dangerous domains by DNS, HTTP and TLS; a domain that only looks alike passes."""

    name = "dangerous-site"
    title = Title("危険サイトへの接続を止める", "dangerous sites are blocked")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Ask for dangerous names in three ways from three PCs."""
        known = lab.known_alerts()
        pc1, pc2, pc3 = (lab.client(pc.name) for pc in (PC1, PC2, PC3))
        asked, fetched, encrypted = together(
            lambda: pc1.resolve("www.malware.test", server=_DNS),
            lambda: pc2.get("http://phishing.test/", address=DANGEROUS.ipv4, timeout_s=BLOCKED_TIMEOUT_S),
            lambda: pc3.get("https://malware.test/", address=DANGEROUS.ipv4, timeout_s=BLOCKED_TIMEOUT_S),
        )
        checks.equal("DNS www.malware.test", None, asked)
        for name, got in (("HTTP Host phishing.test", fetched), ("TLS SNI malware.test", encrypted)):
            checks.add(name, expected="blocked", seen=got, ok=getattr(got, "status", 1) == 0)
        checks.equal(f"DNS {NEIGHBOUR_DOMAIN}", [WEB.ipv4], pc1.resolve(NEIGHBOUR_DOMAIN, server=_DNS))
        for scheme in ("http", "https"):
            neighbour = pc1.get(f"{scheme}://{NEIGHBOUR_DOMAIN}/", options=["-4"])
            checks.add(f"{scheme} {NEIGHBOUR_DOMAIN}", expected="passes", seen=neighbour, ok=neighbour.complete)
        wanted = [
            Expected(
                function="dangerous-site", direction="out", terminal=PC1, destination=r"malware\.test", severity=2
            ),
            Expected(
                function="dangerous-site", direction="out", terminal=PC2, destination=r"phishing\.test", severity=2
            ),
            Expected(
                function="dangerous-site", direction="out", terminal=PC3, destination=r"malware\.test", severity=2
            ),
        ]
        check_alerts(lab, checks, wanted, known=known)
        false_alarms = [a for a in lab.portal.alerts() if NEIGHBOUR_DOMAIN in str(a["destination"])]
        checks.equal(f"alerts about {NEIGHBOUR_DOMAIN}", 0, len(false_alarms))


class CategoryScene:
    """Sites of categories that the owner wants to know about, not to block."""

    name = "category"
    title = Title("カテゴリのサイトは通して記録する", "sites of a category pass and are logged")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Visit a games site by HTTP and a social network by HTTPS."""
        known = lab.known_alerts()
        games, social = together(
            lambda: lab.client(PC1.name).get("http://games.test/", options=["-4"]),
            lambda: lab.client(PC2.name).get("https://sns.test/", options=["-4"]),
        )
        checks.add("http games.test", expected="passes", seen=games, ok=games.complete)
        checks.add("https sns.test", expected="passes", seen=social, ok=social.complete)
        wanted = [
            Expected(
                function="category",
                direction="out",
                terminal=PC1,
                destination=r"games\.test",
                action="logged",
                category="games",
            ),
            Expected(
                function="category",
                direction="out",
                terminal=PC2,
                destination=r"sns\.test",
                action="logged",
                category="sns",
            ),
        ]
        check_alerts(lab, checks, wanted, known=known)
