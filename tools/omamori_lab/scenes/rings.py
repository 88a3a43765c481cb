"""Feeds in rings: a candidate reaches a part of the fleet first, and stops by itself when a box does badly with it.

The candidate of this story blocks a site that the office needs: it loads, the engine is well, and every person who
opens the site makes an alert. That is what the numbers of the box have to show.
"""

from __future__ import annotations

import re
import time
from typing import Any

from omamori_lab import addresses
from omamori_lab.addresses import PC1, PC2, PC3, WEB
from omamori_lab.feed_desk import Publication
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.settings import CHANNEL
from omamori_lab.waiting import wait_for
from omamori_protocol.rings import position

from .scene import Title, together

_DNS = addresses.ROUTER_IPV4
_NEEDED = "web.example"
_ACTIVE_TIMEOUT_S = 60.0
_HALT_TIMEOUT_S = 60.0
_LOOK_TIMEOUT_S = 40.0
_BAKE_S = 3600  # of the last ring: longer than the scene, so that nothing but a report can end it
_POLICY = """\
halt_rate = 0.02
halt_reports = 1
silence_s = 900
[[ring]]
name = "others"
permille = {others}
bake_s = 0
minimum_reports = 0
[[ring]]
name = "everyone"
permille = 1000
bake_s = {bake}
minimum_reports = 1
"""


class FeedRingsScene:
    """A candidate reaches others, then this box, and is taken back by its reports; the next is for everyone now."""

    name = "feed-rings"
    title = Title(
        "脅威情報を一部の機器から配り、悪ければ自動で戻す", "a bad feed stops in its ring and the box goes back"
    )
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Lead a candidate through its rings, and promote another one."""
        feeds = lab.surroundings.feeds
        others = position(lab.serial, CHANNEL)  # the largest ring without this box
        feeds.set_policy(_POLICY.format(others=others, bake=_BAKE_S))
        before = self._take(lab, feeds.publish(), lab.box.console.mark())
        feeds.add_dangerous(_NEEDED)
        try:
            candidate = self._ring_of_others(lab, checks, before)
            self._ring_of_this_box(lab, checks, candidate)
            self._halted(lab, checks, before, candidate)
        finally:
            feeds.remove_dangerous(_NEEDED)
        self._everyone_now(lab, checks)

    def _ring_of_others(self, lab: Lab, checks: Checklist, before: int) -> int:
        """Offer a candidate to a ring without this box, which looks and does not take it."""
        feeds = lab.surroundings.feeds
        mark = feeds.requests_mark()
        candidate = feeds.publish_candidate()
        wait_for(
            lambda: feeds.requests(mark, r"GET /metadata/\d+\.feed\.json") > 0,
            "the box to look what the repository offers",
            timeout_s=_LOOK_TIMEOUT_S,
            every_s=0.3,
        )
        checks.equal("ring of others: candidate fetched", 0, feeds.requests(mark, r"candidate|increment"))
        checks.equal("ring of others: feed of this box", before, lab.portal.box(lab.serial)["feed"]["serial"])
        told = feeds.candidate_step(lab.portal.url)
        checks.equal("ring of others: next", "advance", told["move"])
        return candidate.serial

    def _ring_of_this_box(self, lab: Lab, checks: Checklist, candidate: int) -> None:
        line = rf"omamori: feed serial={candidate} state=active"
        lab.box.await_line(line, timeout_s=_ACTIVE_TIMEOUT_S)
        told = wait_for(
            lambda: self._outcomes(lab, candidate, "good"), "the box's report", timeout_s=_HALT_TIMEOUT_S, every_s=0.5
        )
        checks.equal("this box's ring: boxes that do well", 1, told["outcomes"]["good"])
        step = lab.surroundings.feeds.candidate_step(lab.portal.url)
        checks.add("this box's ring: next", expected="wait, it bakes", seen=step["reason"], ok=step["move"] == "wait")

    def _halted(self, lab: Lab, checks: Checklist, before: int, candidate: int) -> None:
        """Open the site until the reports speak against the candidate; look how the box goes back."""
        mark = lab.box.console.mark()
        blocked = self._visit(lab, 0)
        checks.equal("a needed site is blocked", expected=True, seen=blocked)
        for turn in range(1, 4):
            self._visit(lab, turn)
        told = wait_for(
            lambda: self._outcomes(lab, candidate, "regressed"),
            "the alerts to count",
            timeout_s=_HALT_TIMEOUT_S,
            every_s=0.5,
        )
        reasons = [item["reason"] for item in told["bad"] if item["device"] == lab.serial]
        checks.add("bad report", expected="alerts jumped", seen=reasons, ok="alerts jumped" in " ".join(reasons))
        step = lab.surroundings.feeds.candidate_step(lab.portal.url)
        checks.add(
            "the candidate", expected="halt", seen=f"{step['move']}, {step['reason']}", ok=step["move"] == "halt"
        )
        lab.box.await_line(rf"omamori: feed serial={before} state=active", timeout_s=_ACTIVE_TIMEOUT_S, since=mark)
        answer = wait_for(
            lambda: lab.client(PC2.name).resolve(_NEEDED, server=_DNS, timeout_s=1), "the site again", timeout_s=20
        )
        checks.equal("the needed site afterwards", [WEB.ipv4], answer)
        lab.portal.await_box(lab.serial, lambda box: box["feed"]["serial"] == before, timeout_s=20)

    def _everyone_now(self, lab: Lab, checks: Checklist) -> None:
        """Offer a good candidate to others only, and then to everyone at once."""
        feeds = lab.surroundings.feeds
        mark = lab.box.console.mark()
        candidate = feeds.publish_candidate()
        begin = time.monotonic()
        feeds.promote_candidate()
        lab.box.await_line(
            rf"omamori: feed serial={candidate.serial} state=active", timeout_s=_ACTIVE_TIMEOUT_S, since=mark
        )
        checks.add("everyone now", expected="this box has it", seen=f"after {time.monotonic() - begin:.1f} s", ok=True)
        checks.equal("still answered", [WEB.ipv4], lab.client(PC1.name).resolve(_NEEDED, server=_DNS))

    def _visit(self, lab: Lab, turn: int) -> bool:
        """Ask for names of the site from every PC at the same time; return whether none was answered."""
        questions = [(pc.name, f"h{turn}-{number}.{_NEEDED}") for pc in (PC1, PC2, PC3) for number in range(4)]
        found = together(
            *(
                lambda name=name, host=host: lab.client(name).resolve(host, server=_DNS, timeout_s=1)
                for name, host in questions
            )
        )
        return all(answer is None for answer in found)

    def _outcomes(self, lab: Lab, serial: int, word: str) -> dict[str, Any] | None:
        told: dict[str, Any] = lab.portal.get(f"/api/v1/feeds?channel={CHANNEL}&serial={serial}")
        return told if told["outcomes"].get(word) else None

    def _take(self, lab: Lab, published: Publication, mark: int) -> int:
        line = rf"omamori: feed serial={re.escape(str(published.serial))} state=active"
        lab.box.await_line(line, timeout_s=_ACTIVE_TIMEOUT_S, since=mark)
        return published.serial
