"""Takes rules of others over: what each means for a customer, what it does, and which are left out.

* The policy's first fitting meaning decides on function, severity, direction and action; none: the rule is left out.
* What a rule of somebody else must not do, whatever the policy says: let traffic pass unseen, read or write files of
  the box, run code, change packets. Such rules are left out and reported.
* Rules depend on each other by flow bits. A rule that only sets a bit which a rule in use asks for is taken over
  silently, even if its author or the policy has it switched off; a rule that asks for a bit that nobody sets could
  never match, and is left out.

Pure. Whether the engine takes the rest is the engine's to say (`sieve`).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from omamori_protocol.vocabulary import Action, Function, Severity

from .errors import SourceError
from .policy import NONE, End, Policy, RuleAction, RuleMeaning
from .rules import ParsedRule, Rule, parse_rule

MAX_REPORTED = 50

_FORBIDDEN = {
    "bypass", "config", "datarep", "dataset", "fileext", "filemd5", "filesha1", "filesha256", "filestore", "iprep",
    "lua", "luajit", "luaxform", "nfq_set_mark", "replace", "tag",
}  # fmt: skip
_DROPPED_OPTIONS = {"reference", "metadata", "priority", "gid", "classtype", "sid", "rev"}
_TAKEN_ACTIONS = {"alert", "drop", "reject", "rejectsrc", "rejectdst", "rejectboth"}
_INSIDE = re.compile(r"\$(?:HOME_NET|HTTP_SERVERS|SMTP_SERVERS|SQL_SERVERS|DNS_SERVERS|TELNET_SERVERS)")
_FALLBACK_CLASS = "unknown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A rule that is not in the pack, and why."""

    sid: int
    reason: str


@dataclasses.dataclass
class RuleTally:
    """What became of the rules of a source.

    Attributes:
        by_meaning: Rules taken over, by the title of the meaning.
        reasons: Rules left out, by reason.
        left_out: The first of them that an operator should look at (not those that the policy leaves out).
    """

    by_meaning: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)

    def leave_out(self, sid: int, reason: str, *, is_expected: bool = False) -> None:
        """Count a rule that is left out."""
        self.reasons[reason] += 1
        if not is_expected and len(self.left_out) < MAX_REPORTED:
            self.left_out.append(LeftOut(sid=sid, reason=reason))


@dataclasses.dataclass
class _Candidate:
    rule: ParsedRule
    meaning: RuleMeaning | None  # None: only for the sake of its bits
    sets: frozenset[str]
    asks: frozenset[str]


def adapt_rules(
    rules: Iterable[tuple[ParsedRule, bool]], sids: tuple[int, int], policy: Policy, tally: RuleTally, *, is_own: bool
) -> tuple[Rule, ...]:
    """Take the rules of a source over.

    Args:
        rules: Each with whether its author has it switched on.
        sids: Range of ids of this source.
        policy: What rules mean.
        tally: Counts are added to it.
        is_own: The source is written for Omamori: a rule that says itself what it means is taken as it stands.

    Returns:
        The rules in order of their ids.
    """
    chosen: dict[int, _Candidate] = {}
    taken: list[Rule] = []
    spare: list[_Candidate] = []
    for rule, is_active in rules:
        reason = _objection(rule, sids) or ("the id stands twice" if rule.sid in chosen else "")
        if reason:
            if is_active:
                tally.leave_out(rule.sid, reason)
            continue
        if is_own and is_active and "omamori_function" in rule.metadata():
            taken.append(parse_rule(rule.render(), f"rule {rule.sid}"))
            tally.by_meaning["as written"] += 1
            continue
        candidate = _Candidate(rule, _meaning(rule, policy) if is_active else None, *_bits(rule))
        if candidate.meaning is not None and candidate.meaning.action is not RuleAction.OMITTED:
            chosen[rule.sid] = candidate
            continue
        spare.append(candidate)
        if is_active:
            tally.leave_out(rule.sid, _omission(candidate.meaning), is_expected=True)
    for sid, candidate in _resolve_bits(chosen, spare, tally):
        title = candidate.meaning.title if candidate.meaning else "sets a bit for others"
        try:
            taken.append(_adapted(candidate, policy))
            tally.by_meaning[title] += 1
        except SourceError as err:
            tally.leave_out(sid, str(err).rpartition(": ")[2])
    return tuple(sorted(taken, key=lambda rule: rule.sid))


def _omission(meaning: RuleMeaning | None) -> str:
    return f"policy: {meaning.title}" if meaning else "policy: no meaning fits"


def _objection(rule: ParsedRule, sids: tuple[int, int]) -> str:
    if not sids[0] <= rule.sid <= sids[1]:
        return "an id of somebody else"
    if rule.action not in _TAKEN_ACTIONS:
        return f"the action {rule.action}"
    if rule.arrow != "->":
        return "both directions at once"
    forbidden = sorted({name for name, _ in rule.options if name in _FORBIDDEN})
    return f"the keyword {forbidden[0]}" if forbidden else ""


def _meaning(rule: ParsedRule, policy: Policy) -> RuleMeaning | None:
    words = rule.metadata()
    facts = (
        rule.first("classtype") or _FALLBACK_CLASS,
        words.get("signature_severity", NONE),
        words.get("confidence", NONE),
        words.get("performance_impact", NONE),
    )
    start = opened_by(rule)
    for meaning in policy.meanings:
        conditions = (meaning.classtypes, meaning.severities, meaning.confidences, meaning.costs)
        if all(not wanted or fact in wanted for fact, wanted in zip(facts, conditions, strict=True)) and (
            meaning.start in {End.ANY, start}
        ):
            return meaning
    return None


def opened_by(rule: ParsedRule) -> End:
    """Return who opened the connection that a rule looks at: the side that sends, unless it looks at answers."""
    flow = (rule.first("flow") or "").replace(" ", "").split(",")
    is_answer = bool({"to_client", "from_server"} & set(flow))
    address = rule.target if is_answer else rule.source
    if "$EXTERNAL_NET" in address:
        return End.OUTSIDE
    if _INSIDE.search(address) and not address.startswith("!"):
        return End.INSIDE
    other = rule.source if is_answer else rule.target
    if address == "any" and _INSIDE.search(other) and not other.startswith("!"):
        return End.OUTSIDE
    return End.ANY


def _bits(rule: ParsedRule) -> tuple[frozenset[str], frozenset[str]]:
    """Return the bits that a rule sets and those that it cannot do without."""
    sets: set[str] = set()
    asks: set[str] = set()
    for value in rule.values("flowbits"):
        verb, _, names = (part.strip() for part in value.partition(","))
        if verb in {"set", "toggle"}:
            sets.add(names)
        elif verb == "isset" and "|" not in names:
            asks.add(names)
    return frozenset(sets), frozenset(asks)


def _resolve_bits(
    chosen: dict[int, _Candidate], spare: list[_Candidate], tally: RuleTally
) -> Iterator[tuple[int, _Candidate]]:
    setters: dict[str, list[_Candidate]] = {}
    for candidate in spare:
        for bit in candidate.sets:
            setters.setdefault(bit, []).append(candidate)
    present = {bit for candidate in chosen.values() for bit in candidate.sets}
    queue = [bit for candidate in chosen.values() for bit in candidate.asks if bit not in present]
    while queue:
        bit = queue.pop()
        if bit in present:
            continue
        for helper in setters.get(bit, []):
            chosen.setdefault(helper.rule.sid, dataclasses.replace(helper, meaning=None))
            present |= helper.sets
            queue.extend(ask for ask in helper.asks if ask not in present)
    while True:
        present = {bit for candidate in chosen.values() for bit in candidate.sets}
        orphans = [sid for sid, candidate in chosen.items() if not candidate.asks <= present]
        if not orphans:
            break
        for sid in orphans:
            del chosen[sid]
            tally.leave_out(sid, "asks for a flow bit that nobody sets", is_expected=True)
    yield from chosen.items()


def _adapted(candidate: _Candidate, policy: Policy) -> Rule:
    rule, meaning = candidate.rule, candidate.meaning
    kept = [(name, value) for name, value in rule.options if name not in _DROPPED_OPTIONS]
    is_silent = meaning is None or rule.has("noalert") or "noalert" in rule.values("flowbits")
    if meaning is None and not rule.has("noalert") and "noalert" not in rule.values("flowbits"):
        kept.append(("flowbits", "noalert"))
    function, severity = (meaning.function, meaning.severity) if meaning else (Function.IPS, Severity.ONE)
    words = [f"omamori_function {function.word}", f"omamori_severity {int(severity)}"]
    if meaning is not None and meaning.direction is not None:
        words.append(f"omamori_direction {meaning.direction.word}")
    classtype = rule.first("classtype") or _FALLBACK_CLASS
    kept += [
        ("classtype", classtype if classtype in policy.classes else _FALLBACK_CLASS),
        ("metadata", ", ".join(words)),
        ("sid", str(rule.sid)),
        ("rev", str(rule.revision)),
    ]
    # What nobody is told must not be blocked either: nobody would find out why.
    is_blocked = meaning is not None and meaning.action is RuleAction.BLOCKED and not is_silent
    adapted = dataclasses.replace(rule, action=_action(rule, is_blocked=is_blocked), options=tuple(kept))
    return parse_rule(adapted.render(), f"rule {rule.sid}")


def _action(rule: ParsedRule, *, is_blocked: bool) -> str:
    if not is_blocked:
        return "alert"
    # One answer or question of the name service is dropped alone, see `templates`.
    return "drop:packet" if rule.protocol == "dns" else "drop"


def action_of(rule: Rule) -> Action:
    """Return what a rule of a pack does."""
    return Action.LOGGED if rule.action == "alert" else Action.BLOCKED
