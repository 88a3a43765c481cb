"""The agent's TUF client as a command, the way the public conformance suite calls one.

    python -m omamori_agent.feed.tuf_client --metadata-dir DIR init ROOT
    … --metadata-dir DIR --metadata-url URL refresh
    … --metadata-dir DIR --metadata-url URL --target-name PATH --target-base-url URL --target-dir DIR download

Updater, fetcher and its bounds are those of the daemon (`trust`, `fetcher`); what differs stands in `SUITE_LIMITS` and
is asked of the suite's repositories, which are deeper than ours. Over plain HTTP it talks to this machine only. Exit
status 0 means that everything was verified, 1 that something was not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tuf.api import exceptions
from tuf.ngclient.updater import Updater

from omamori_agent.errors import AgentError
from omamori_agent.files import read_bounded, write_atomic

from .fetcher import HTTPSFetcher
from .limits import FeedLimits
from .trust import TrustLimits, make_updater

# Without ".json": whoever looks at the metadata must not take it for a role.
_TRUSTED = "trusted-root"
SUITE_LIMITS = TrustLimits(
    root_bytes=512_000,
    timestamp_bytes=16_384,
    snapshot_bytes=2_000_000,
    targets_bytes=5_000_000,
    delegations=32,
)


def _updater(options: argparse.Namespace) -> Updater:
    if options.metadata_url is None:
        raise AgentError("--metadata-url is missing")
    root = read_bounded(options.metadata_dir / _TRUSTED, SUITE_LIMITS.root_bytes)
    scratch = options.target_dir or options.metadata_dir
    fetcher = HTTPSFetcher(options.ca_file, scratch, FeedLimits(), is_loopback_http_allowed=True)
    return make_updater(options.metadata_dir, options.metadata_url, root, fetcher, SUITE_LIMITS)


def _init(options: argparse.Namespace) -> None:
    root = read_bounded(options.root, SUITE_LIMITS.root_bytes)
    fetcher = HTTPSFetcher(None, options.metadata_dir, FeedLimits())
    make_updater(options.metadata_dir, "https://localhost", root, fetcher, SUITE_LIMITS)
    write_atomic(options.metadata_dir / _TRUSTED, root)


def _refresh(options: argparse.Namespace) -> None:
    _updater(options).refresh()


def _download(options: argparse.Namespace) -> None:
    if None in (options.target_name, options.target_base_url, options.target_dir):
        raise AgentError("download needs --target-name, --target-base-url and --target-dir")
    updater = _updater(options)
    updater.target_dir = str(options.target_dir)
    target = updater.get_targetinfo(options.target_name)
    if target is None:
        raise AgentError(f"no target {options.target_name[:200]!r}")
    if updater.find_cached_target(target) is None:
        updater.download_target(target, target_base_url=options.target_base_url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omamori-tuf-client", description="The box's TUF client, for conformance.")
    parser.add_argument("--metadata-dir", type=Path, required=True, metavar="DIR", help="trusted metadata")
    parser.add_argument("--metadata-url", metavar="URL", help="the repository's metadata")
    parser.add_argument("--target-name", metavar="PATH", help="target to download")
    parser.add_argument("--target-base-url", metavar="URL", help="the repository's targets")
    parser.add_argument("--target-dir", type=Path, metavar="DIR", help="where targets are kept")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="CA of an https repository")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("init", help="trust a root")
    command.add_argument("root", type=Path, metavar="ROOT", help="root metadata to trust")
    command.set_defaults(command=_init)
    commands.add_parser("refresh", help="fetch and verify metadata").set_defaults(command=_refresh)
    commands.add_parser("download", help="fetch and verify a target").set_defaults(command=_download)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (AgentError, exceptions.RepositoryError, exceptions.DownloadError, OSError, ValueError) as err:
        sys.stderr.write(f"error: {type(err).__name__}: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
