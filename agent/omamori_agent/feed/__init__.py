"""The threat feed: fetched, verified, unpacked, tested by the engine, made current, or refused.

Nothing here stands in the way of traffic, and whatever is refused leaves the last good feed in place. `build` wires
the worker; the errors of this package draw what can happen.
"""

from __future__ import annotations

from omamori_agent.config import AgentConfig
from omamori_agent.engine import EngineFeature
from omamori_agent.ports import Clock, Outbox
from omamori_agent.status import StatusBoard

from .activate import Activator
from .canary import Canary
from .channel import FeedChannel, FeedPart
from .engine_test import EngineTest
from .exclusion import RuleExclusion
from .fetcher import HTTPSFetcher
from .limits import FeedLimits
from .reporter import FeedReporter
from .store import FeedStore
from .trust import FeedRepository
from .worker import FeedFeature, FeedWorker

__all__ = ["FeedFeature", "FeedLimits", "RuleExclusion", "build"]


def build(
    config: AgentConfig,
    outbox: Outbox,
    status: StatusBoard,
    clock: Clock,
    engine: EngineFeature,
    limits: FeedLimits | None = None,
    exclusion: RuleExclusion | None = None,
) -> FeedFeature:
    """Make the feed's worker; nothing is touched before it runs.

    Args:
        config: Paths, repository and channel.
        outbox: Gets feed events.
        status: Gets serial, state and reason; says whether the engine inspects.
        clock: Time.
        engine: What `engine.build` made.
        limits: Bounds and intervals; the defaults are those of the product.
        exclusion: Rules that shall be left out.
    """
    limits = limits or FeedLimits()
    channel = FeedChannel(config.paths.feed_channel, config.provision.channel)
    store = FeedStore(config.paths, reserve_bytes=limits.reserve_bytes)
    fetcher = HTTPSFetcher(config.paths.service_ca, store.download_path.parent, limits, proxy=config.provision.proxy)
    repository = FeedRepository(
        base_url=config.provision.repository_url,
        device=config.device,
        channel=channel.get(),
        root_file=config.paths.trust_root,
        metadata_dir=config.paths.feed_metadata,
        fetcher=fetcher,
        clock=clock,
    )
    activator = Activator(
        store=store,
        control=engine.control,
        watch=engine.watch,
        gate=engine.gate,
        block_lists=engine.block_lists,
        engine_test=EngineTest(config.paths, timeout_s=limits.test_timeout_s),
        status=status,
        clock=clock,
        limits=limits,
        exclusion=exclusion,
        canary=Canary(engine.control, tries=limits.canary_tries) if limits.canary_tries else None,
    )
    worker = FeedWorker(
        channel=channel,
        repository=repository,
        store=store,
        activator=activator,
        control=engine.control,
        reporter=FeedReporter(outbox, status, clock),
        clock=clock,
        limits=limits,
    )
    return FeedFeature([worker], worker.on_announcement, channel, FeedPart(channel))
