"""Feeds while the office works: a new one acts at once, a bad one is refused and the last good one stays."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from omamori_lab import addresses
from omamori_lab.addresses import DANGEROUS, NEW_DOMAIN, PC1, PC2, WEB
from omamori_lab.feed_desk import Publication, spoil_metadata, spoil_target
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist
from omamori_lab.waiting import wait_for

from .scene import Title, check_alerts

_DNS = addresses.ROUTER_IPV4
_BUDGET_S = 5.0
_REFUSAL_TIMEOUT_S = 30.0
# Not a wait for a state: a signature's lifetime of one second has to pass on the box's clock too, which an emulated
# processor keeps only roughly.
_EXPIRY_S = 8.0
_ACTIVE_TIMEOUT_S = 40.0


class Refusal(NamedTuple):
    """How a box tells that it did not take a feed; the reason is a regular expression."""

    state: str
    reason: str


class FeedUpdateScene:
    """One more dangerous domain is published while an office PC pings at 5 Hz."""

    name = "feed-update"
    title = Title("新しい脅威情報が5秒以内に効く", "a new feed acts within five seconds")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Publish, and ask for the new domain until no answer comes any more."""
        known = lab.known_alerts()
        pc1, pc2 = lab.client(PC1.name), lab.client(PC2.name)
        feeds = lab.surroundings.feeds
        checks.equal(f"before: DNS {NEW_DOMAIN}", [DANGEROUS.ipv4], pc2.resolve(NEW_DOMAIN, server=_DNS))
        feeds.add_dangerous(NEW_DOMAIN)
        pack = feeds.build()
        with pc1.pinging(WEB.ipv4) as loop:
            published = feeds.publish_pack(pack, feeds.repository, announce=True)
            blocked_s = self._await_blocked(lab) - published.at_s
            lab.box.await_line(rf"omamori: feed serial={published.serial} state=active", timeout_s=_ACTIVE_TIMEOUT_S)
            summary = loop.stop()
        checks.add(
            "published → blocked",
            expected=f"≤ {_BUDGET_S:g} s",
            seen=f"{blocked_s:.1f} s",
            ok=blocked_s <= _BUDGET_S,
        )
        checks.add(
            "ping at 5 Hz meanwhile",
            expected="none lost",
            seen=summary,
            ok=summary.sent == summary.received and summary.sent > 5,
        )
        checks.equal("still answered: web.example", [WEB.ipv4], pc2.resolve("web.example", server=_DNS))
        wanted = [Expected(function="dangerous-site", direction="out", terminal=PC2, destination=NEW_DOMAIN)]
        check_alerts(lab, checks, wanted, known=known)

    def _await_blocked(self, lab: Lab) -> float:
        """Return the Unix time of the first question for the new domain that stayed without an answer."""
        pc2 = lab.client(PC2.name)

        def asked() -> float | None:
            at_s = time.time()
            return at_s if pc2.resolve(NEW_DOMAIN, server=_DNS, timeout_s=1) is None else None

        return wait_for(asked, f"{NEW_DOMAIN} blocked", timeout_s=60, every_s=0.1)


class FeedRefusedScene:
    """Spoilt repositories are served; then the good one again."""

    name = "feed-refused"
    title = Title("不正な脅威情報は受け取らない", "bad feeds are refused")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Serve four bad repositories one after the other, and a good one at the end.

        The operator's repository goes on being right all the time; boxes see a copy of it that was spoilt on the way.
        """
        feeds = lab.surroundings.feeds
        old = feeds.copy("old")
        active = self._take(lab, feeds.publish())
        # A box tries again by itself, too. So nothing good is served before the end, not even for a moment.
        mark = lab.box.console.mark()
        with feeds.serving(old):
            feeds.publish(announce=False)
            self._refused(lab, checks, "an older repository", Refusal("refused", "rollback"), active, mark)
            changed = feeds.copy("changed-metadata")
            spoil_metadata(changed)
            mark = lab.box.console.mark()
            with feeds.serving(changed):
                self._refused(lab, checks, "changed metadata", Refusal("refused", "tampered.*sign"), active, mark)
            changed = feeds.copy("changed-pack")
            spoil_target(changed)
            mark = lab.box.console.mark()
            with feeds.serving(changed):
                self._refused(lab, checks, "a changed pack", Refusal("refused", "tampered.*hash"), active, mark)
            feeds.publish(announce=False, expires="timestamp=1s")
            time.sleep(_EXPIRY_S)
            mark = lab.box.console.mark()
        self._refused(lab, checks, "an expired repository", Refusal("stale", "expired"), active, mark)
        good = feeds.publish()
        checks.equal("good feed afterwards", good.serial, self._take(lab, good))
        lab.portal.await_box(
            lab.serial,
            lambda box: box["feed"]["serial"] == good.serial and box["feed"]["state"] == "active",
            timeout_s=20,
        )
        answer = lab.client(PC2.name).resolve("malware.test", server=_DNS)
        checks.equal("still blocked: malware.test", None, answer)

    def _take(self, lab: Lab, published: Publication) -> int:
        """Wait until the box has taken a feed; return its serial."""
        lab.box.await_line(rf"omamori: feed serial={published.serial} state=active", timeout_s=_ACTIVE_TIMEOUT_S)
        return published.serial

    def _refused(self, lab: Lab, checks: Checklist, name: str, refusal: Refusal, active: int, mark: int) -> None:
        """Announce, and note the refusal: on the console, in the portal with its reason, the last good feed stays."""
        lab.surroundings.feeds.announce()
        line = lab.box.await_line(
            rf"omamori: feed serial=(?P<serial>\d+) state={refusal.state} reason=(?P<reason>.*{refusal.reason}.*)",
            timeout_s=_REFUSAL_TIMEOUT_S,
            since=mark,
        )
        checks.add(name, expected=f"{refusal.state}, because of: {refusal.reason}", seen=line["reason"], ok=True)
        box = lab.portal.await_box(
            lab.serial,
            lambda box: (
                box["feed"]["state"] == refusal.state
                and re.search(refusal.reason, str(box["feed"]["reason"])) is not None
            ),
            timeout_s=_REFUSAL_TIMEOUT_S,
        )
        checks.equal(f"{name}: feed in the portal", active, box["feed"]["serial"])
