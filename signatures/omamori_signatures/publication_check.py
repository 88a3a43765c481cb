"""Everything that a pack must pass before it is published, in one place and one order, cheapest first.

1. form: lists sorted, unique and normalised, rules of the allowed form (`pack_reader`);
2. popular sites: none would be blocked;
3. budget: it fits the board;
4. the engine loads it; what that took is told, and which rules every box would pay for (`prefilters`);
5. probes: every list acts; 6. cases: what must be said is said, and ordinary traffic raises nothing.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest

from .budget import Cost, board_memory_mib, estimate, exceed
from .cases import read_cases, run_cases
from .engine import Engine
from .errors import CheckError
from .indicators import DomainRules
from .pack_reader import check_content
from .policy import Budget
from .popular import find_blocked, read_popular
from .prefilters import find_expensive
from .probes import probe
from .run import children_peak_bytes

_MAX_FINDINGS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckPlan:
    """What is checked besides the form; None leaves a check out."""

    engine: Engine | None = None
    popular: tuple[Path, ...] = ()
    board: Path | None = None
    budget: Budget | None = None
    cases: Path | None = None
    probes: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found out about a pack that passed.

    Attributes:
        cost: Estimated.
        engine_load_s: Seconds that the engine took here; None if it was not asked.
        engine_peak_mib: Its largest resident memory here; None if it was not asked.
        popular_count: Popular sites that were compared.
        case_count: Cases that were played.
        expensive: Rules that cost too much, by id, and why; a warning.
        done: The checks, in words.
    """

    cost: Cost
    engine_load_s: float | None
    engine_peak_mib: int | None
    popular_count: int
    case_count: int
    expensive: Mapping[int, str]
    done: tuple[str, ...]


def check_pack(manifest: FeedManifest, files: dict[str, bytes], plan: CheckPlan) -> CheckReport:
    """Check a pack.

    Raises:
        PackError: Its form is wrong.
        CheckError: It must not be published; `findings` says why.
        EngineError: The engine refuses it, or could not be started.
        SourceError: What it is checked against cannot be read.
    """
    check_content(manifest, files)
    done = ["form"]
    popular_count = _check_popular(manifest, files, plan.popular)
    done += ["popular sites"] * bool(plan.popular)
    cost = estimate(manifest)
    if plan.board is not None and plan.budget is not None:
        _refuse("the pack is too large for the board", exceed(cost, plan.budget, board_memory_mib(plan.board)))
        done.append("budget")
    load_s = peak_mib = None
    expensive: Mapping[int, str] = {}
    if plan.engine is not None:
        start = time.monotonic()
        plan.engine.test(manifest, files)
        load_s, peak_mib = round(time.monotonic() - start, 1), children_peak_bytes() // 2**20
        expensive = find_expensive(plan.engine.pack_prefilters(manifest, files))
        done.append("engine")
    case_count = _ask_engine(plan, manifest, files)
    done += ["probes"] * (plan.probes and plan.engine is not None) + ["cases"] * bool(case_count)
    return CheckReport(
        cost=cost,
        engine_load_s=load_s,
        engine_peak_mib=peak_mib,
        popular_count=popular_count,
        case_count=case_count,
        expensive=expensive,
        done=tuple(done),
    )


def _check_popular(manifest: FeedManifest, files: Mapping[str, bytes], paths: tuple[Path, ...]) -> int:
    domains = DomainRules()
    names: set[str] = set()
    for path in paths:
        names |= read_popular(path, domains)
    _refuse("popular sites would be blocked", find_blocked(names, manifest, files, domains))
    return len(names)


def _ask_engine(plan: CheckPlan, manifest: FeedManifest, files: Mapping[str, bytes]) -> int:
    if plan.engine is None:
        return 0
    with tempfile.TemporaryDirectory(prefix="omamori-check-") as name:
        directory = Path(name)
        if plan.probes:
            _refuse("lists do not act", probe(plan.engine, manifest, files, directory))
        cases = read_cases(plan.cases) if plan.cases is not None else ()
        verdicts = run_cases(cases, plan.engine, manifest, files, directory) if cases else []
    _refuse("cases failed", tuple(f"{item.case}: {problem}" for item in verdicts for problem in item.problems))
    return len(verdicts)


def _refuse(message: str, findings: tuple[str, ...]) -> None:
    if findings:
        raise CheckError(f"{message}: {len(findings)} findings", findings=findings[:_MAX_FINDINGS])
