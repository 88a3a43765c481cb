"""Command line `omamori-ota`: arguments in, one call, a line or JSON out.

Nothing is decided here. Errors of this package become ``error:`` and ``hint:`` on stderr and exit status 1; wrong
usage is 2, Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from omamori_protocol.command import Moment, Verb
from omamori_protocol.errors import ProtocolError
from omamori_protocol.topics import Leaf, check_channel, device_topic

from . import announcement, keys, packs, pki
from .broker import BrokerAddress, publish, publish_retained
from .candidate import Candidate
from .cli_candidate import CandidateCommands, add_candidate_commands
from .cli_factory import add_factory_commands
from .cli_firmware import add_firmware_commands
from .cli_output import print_json
from .cli_revocation import add_revocation_commands
from .clock import parse_duration, system_clock
from .errors import OtaError, RejectedError
from .files import PRIVATE_FILE, read_bounded, write_atomic
from .key_rotation import KeyRotation, recovery_names
from .keys import KeyDirectory
from .repository import Published, Repository, RepositoryStatus
from .roles import Lifetimes
from .settings_file import MAX_BYTES as MAX_SETTINGS_BYTES
from .settings_file import parse_settings, render_settings
from .signed import DesiredDesk

_Commands = Any  # argparse keeps the type of add_subparsers to itself


def _published(done: Published, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    if done.serial:
        print(f"published feed channel={done.channel} serial={done.serial}")
    print("signed " + " ".join(f"{role}={version}" for role, version in done.versions.items()))


def _keys_init(options: argparse.Namespace) -> None:
    made = keys.init(options.dir, system_clock, Lifetimes.parse(options.expires))
    print(f"keys in {made.path}; public part for the image in {made.path / 'trust'}")
    print("These are development keys: all of them in one place, without passphrases.")


def _keys_complete(options: argparse.Namespace) -> None:
    added = keys.complete(options.dir, system_clock)
    print(f"added {', '.join(added)}" if added else "nothing is missing")


def _keys_rotate(options: argparse.Namespace) -> None:
    names = recovery_names(options.name) if options.word == "revoke" else options.name
    rotation = KeyRotation(options.repo, KeyDirectory(options.keys), system_clock, Lifetimes.parse(options.expires))
    done = rotation.replace_lost(names) if options.word == "replace-lost" else rotation.rotate(names)
    if not options.json:
        print(f"replaced {' '.join(names)}; the old keys are destroyed and sign for nobody any more")
    _published(done, as_json=options.json)


def _repository(options: argparse.Namespace) -> Repository:
    return Repository(options.repo, KeyDirectory(options.keys), system_clock, Lifetimes.parse(options.expires))


def _repository_init(options: argparse.Namespace) -> None:
    _published(_repository(options).init(), as_json=options.json)


def _broker(options: argparse.Namespace) -> BrokerAddress | None:
    if options.announce is None:
        return None
    if options.tls_dir is None:
        raise RejectedError("--announce needs --tls-dir", hint="omamori-ota pki client KEYS DIR --name publisher")
    broker = BrokerAddress.parse(options.announce, options.tls_dir)
    broker.tls_context()  # before anything is published: a wrong directory is noticed now
    return broker


def _publish_feed(options: argparse.Namespace) -> None:
    broker = _broker(options)
    increment = packs.read_increment(options.increment) if options.increment is not None else None
    done = _repository(options).publish_feed(packs.read_pack(options.pack), check_channel(options.channel), increment)
    _published(done, as_json=options.json)
    if broker is not None:
        announcement.announce(broker, done.channel, done.serial)


def _announce(options: argparse.Namespace) -> None:
    broker = _broker(options)
    channel = check_channel(options.channel)
    serial = Candidate(_repository(options), channel).newest()
    if broker is not None:
        announcement.announce(broker, channel, serial)
    print(f"announced feed channel={channel} serial={serial}")


def _refresh(options: argparse.Namespace) -> None:
    _published(_repository(options).refresh(is_offline_included=options.offline), as_json=options.json)


def _status(options: argparse.Namespace) -> None:
    now = system_clock()
    status = _repository(options).status()
    if options.json:
        body: dict[str, Any] = dataclasses.asdict(status)
        for role in body["roles"]:
            role["expired"] = now >= role["expires"]
        print_json(body)
        return
    _print_status(status, now)


def _print_status(status: RepositoryStatus, now: datetime) -> None:
    for role in status.roles:
        left = role.expires - now
        state = "EXPIRED" if left.total_seconds() <= 0 else f"{left.days} d {left.seconds // 3600} h left"
        expires = role.expires.strftime("%Y-%m-%d %H:%M:%SZ")
        print(
            f"{role.role:<10} version {role.version:<6} {role.threshold} of {role.keys} keys  until {expires} ({state})"
        )
    for feed in status.feeds:
        print(f"feed {feed.channel}: serial {feed.serial}, {feed.length} bytes, sha256 {feed.sha256}")
        for item in feed.increments:
            print(f"  from serial {item.start} to {item.goal}: {item.size} bytes")


def _pki_server(options: argparse.Namespace) -> None:
    pki.issue_server(
        KeyDirectory(options.keys),
        options.out,
        options.name,
        system_clock,
        lifetime=parse_duration(options.lifetime),
        replace=options.replace,
    )
    print(f"server certificate for {', '.join(options.name)} in {options.out}")


def _pki_client(options: argparse.Namespace) -> None:
    pki.issue_client(
        KeyDirectory(options.keys),
        options.out,
        options.name,
        system_clock,
        lifetime=parse_duration(options.lifetime),
        replace=options.replace,
    )
    print(f"client certificate for {options.name} in {options.out}")


def _command_broker(options: argparse.Namespace) -> BrokerAddress | None:
    if options.broker is None and options.out is None:
        raise RejectedError("nothing to do with it", hint="give --broker and --tls-dir, or --out")
    if options.broker is None:
        return None
    if options.tls_dir is None:
        raise RejectedError("--broker needs --tls-dir", hint="omamori-ota pki client KEYS DIR --name publisher")
    address = BrokerAddress.parse(options.broker, options.tls_dir)
    address.tls_context()  # before anything is signed: a wrong directory is noticed now
    return address


def _desk(options: argparse.Namespace) -> DesiredDesk:
    return DesiredDesk(KeyDirectory(options.keys), system_clock)


def _desired_publish(options: argparse.Namespace) -> None:
    address = _command_broker(options)
    settings = parse_settings(read_bounded(options.file, MAX_SETTINGS_BYTES))
    lifetime = parse_duration(options.valid)
    signed = _desk(options).sign(options.device, settings, lifetime=lifetime, version=options.version)
    if options.out is not None:
        write_atomic(options.out, signed.data, mode=PRIVATE_FILE)
    if address is not None:
        publish(address, device_topic(options.device, Leaf.DESIRED), signed.data, retain=True)
    if options.json:
        print_json({"device": options.device, "version": signed.document.version, "bytes": len(signed.data)})
    else:
        print(f"desired state device={options.device} version={signed.document.version} bytes={len(signed.data)}")


def _desired_resend(options: argparse.Namespace) -> None:
    address = BrokerAddress.parse(options.broker, options.tls_dir)
    address.tls_context()  # before thousands of documents are read
    documents = [
        (device_topic(signed.document.device, Leaf.DESIRED), signed.data) for signed in _desk(options).everything()
    ]
    publish_retained(address, documents)
    if options.json:
        print_json({"documents": len(documents)})
    else:
        print(f"desired states sent again: {len(documents)}")


def _desired_show(options: argparse.Namespace) -> None:
    desk = _desk(options)
    signed = desk.read(options.file) if options.file is not None else desk.newest(options.device)
    if signed is None:
        raise RejectedError(f"nothing has been signed for {options.device}")
    print_json(render_settings(signed.document))


def _command(options: argparse.Namespace) -> None:
    address = _command_broker(options)
    lifetime = parse_duration(options.valid)
    command, data = _desk(options).command(
        options.device,
        options.verb,
        minutes=options.minutes,
        moment=None if options.when is None else Moment[options.when.upper()],
        asked_by=options.asked_by,
        lifetime=lifetime,
    )
    if options.out is not None:
        write_atomic(options.out, data, mode=PRIVATE_FILE)
    if address is not None:
        topic = device_topic(options.device, Leaf.COMMAND)
        publish(address, topic, data, retain=False, expiry_s=int(lifetime.total_seconds()))
    number = command.command_id.hex()
    detail = {name: getattr(options, name) for name in options.detail}
    if options.json:
        print_json({"device": options.device, "command": number, **detail})
    else:
        words = [f"{name}={value}" for name, value in {"device": options.device, **detail, "command": number}.items()]
        print(" ".join([options.verb.word, *words]))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _add_expires(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expires",
        metavar="ROLE=DURATION",
        action="append",
        default=[],
        help="lifetime of what is signed now, instead of the role's own: timestamp=30s (repeatable)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    parser.add_argument("repo", metavar="REPO", type=Path, help="repository directory")
    _add_expires(parser)
    _add_json(parser)


def _add_announcement(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--channel", required=True, help="feed channel, for example demo")
    parser.add_argument(
        "--announce", metavar="mqtts://HOST:PORT", required=required, help="tell boxes through this broker"
    )
    parser.add_argument("--tls-dir", metavar="DIR", type=Path, help="TLS directory of the client `publisher`")


def _add_candidate(parser: argparse.ArgumentParser) -> None:
    _add_repository(parser)
    _add_announcement(parser, required=False)


def _add_pki(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to make")
    parser.add_argument("--lifetime", default="90d", metavar="DURATION", help="at most 365d (default: %(default)s)")
    parser.add_argument("--replace", action="store_true", help="replace OUT, to renew a certificate (with a new key)")


def _add_repository_commands(commands: _Commands) -> _Commands:
    keys_group = group = commands.add_parser("keys", help="make the operator's keys").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = group.add_parser("init", help="make a new key directory (development keys)")
    command.add_argument("dir", metavar="DIR", type=Path, help="directory to make; never overwritten")
    _add_expires(command)
    command.set_defaults(run=_keys_init)
    command = group.add_parser("complete", help="add what a key directory of an older version lacks")
    command.add_argument("dir", metavar="DIR", type=Path, help="key directory")
    command.set_defaults(run=_keys_complete)

    for word, what in (
        ("rotate", "replace keys of the repository, as a matter of routine"),
        ("revoke", "replace stolen keys, and those a thief could have done lasting harm with"),
        ("replace-lost", "replace online keys of which nothing is left"),
    ):
        command = group.add_parser(word, help=what)
        _add_repository(command)
        command.add_argument("name", metavar="KEY", nargs="+", help="root1, targets1, feed, snapshot, timestamp …")
        command.set_defaults(run=_keys_rotate, word=word)

    group = commands.add_parser("repository", help="make a repository").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("init", help="make a new TUF repository")
    _add_repository(command)
    command.set_defaults(run=_repository_init)

    group = commands.add_parser("publish", help="publish something").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("feed", help="make a feed pack the current one of its channel")
    _add_repository(command)
    command.add_argument("pack", metavar="PACK", type=Path, help="pack.tar.gz from omamori-feed build")
    command.add_argument(
        "--increment",
        metavar="FILE",
        type=Path,
        help="from omamori-feed increment, between the published pack and PACK",
    )
    _add_announcement(command, required=False)
    command.set_defaults(run=_publish_feed)

    group = commands.add_parser("announce", help="announce again").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("feed", help="announce the published serial of a channel")
    _add_repository(command)
    _add_announcement(command, required=True)
    command.set_defaults(run=_announce)

    command = commands.add_parser("refresh", help="renew snapshot and timestamp, and the feed role when it is due")
    _add_repository(command)
    command.add_argument("--offline", action="store_true", help="also renew targets and firmware")
    command.set_defaults(run=_refresh)

    command = commands.add_parser("status", help="show roles, versions, expiries and published packs")
    _add_repository(command)
    command.set_defaults(run=_status)
    return keys_group


def _add_identity_commands(commands: _Commands) -> None:
    group = commands.add_parser("pki", help="issue certificates").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("server", help="certificate of a server (broker, repository, enrolment)")
    _add_pki(command)
    command.add_argument("--name", action="append", required=True, help="host name or address (repeatable)")
    command.set_defaults(run=_pki_server)
    command = group.add_parser("client", help="certificate of a service that connects to the broker")
    _add_pki(command)
    command.add_argument("--name", required=True, help="for example ingest or publisher")
    command.set_defaults(run=_pki_client)


def _add_box(parser: argparse.ArgumentParser, *, valid: str) -> None:
    parser.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    parser.add_argument("--device", required=True, help="the box's serial, for example ZA35-000001")
    parser.add_argument("--broker", metavar="mqtts://HOST:PORT", help="send it through this broker")
    parser.add_argument("--tls-dir", metavar="DIR", type=Path, help="TLS directory of the client `publisher`")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the signed message to FILE")
    parser.add_argument(
        "--valid", default=valid, metavar="DURATION", help="how long it may be delivered (default: %(default)s)"
    )
    _add_json(parser)


def _add_command(parser: argparse.ArgumentParser, verb: Verb) -> None:
    _add_box(parser, valid="10m")
    parser.add_argument("--asked-by", default="", metavar="NAME", help="who wants it, for the record")
    detail = {Verb.REBOOT: ("when",), Verb.DIAGNOSTICS: ()}.get(verb, ("minutes",))
    parser.set_defaults(run=_command, verb=verb, detail=detail, minutes=0, when=None)


def _add_box_commands(commands: _Commands) -> None:
    group = commands.add_parser("desired", help="say how a box shall be").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = group.add_parser("publish", help="sign a box's desired state and send it")
    _add_box(command, valid="365d")
    command.add_argument("--file", metavar="FILE", type=Path, required=True, help="settings in JSON")
    command.add_argument("--version", type=_positive, help="instead of the one after the newest on record")
    command.set_defaults(run=_desired_publish)
    command = group.add_parser("resend", help="send every box's newest document again: a node of the broker lost it")
    command.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    command.add_argument("--broker", metavar="mqtts://HOST:PORT", required=True, help="all nodes of this broker")
    command.add_argument(
        "--tls-dir", metavar="DIR", type=Path, required=True, help="TLS directory of the client `publisher`"
    )
    _add_json(command)
    command.set_defaults(run=_desired_resend)
    command = group.add_parser("show", help="show what was signed last for a box (without the passphrase)")
    command.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--device", help="the box's serial")
    source.add_argument("--file", metavar="FILE", type=Path, help="a signed document instead")
    command.set_defaults(run=_desired_show)

    group = commands.add_parser("command", help="tell a box to do something once").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = group.add_parser("bypass", help="let everything pass uninspected for some minutes")
    _add_command(command, Verb.BYPASS)
    command.add_argument("--minutes", type=int, required=True, help="0 to 1440; 0 ends a bypass")
    command = group.add_parser("identify", help="blink the lamp, so that somebody beside the box knows which one it is")
    _add_command(command, Verb.IDENTIFY)
    command.add_argument("--minutes", type=int, default=5, help="0 to 60; 0 ends it (default: %(default)s)")
    command = group.add_parser("reboot", help="restart the box in an orderly way")
    _add_command(command, Verb.REBOOT)
    command.add_argument(
        "--when",
        choices=[moment.word for moment in Moment],
        default=Moment.WINDOW.word,
        help="window: of the box's firmware section; never: take back one that waits (default: %(default)s)",
    )
    command = group.add_parser("diagnostics", help="have the box tell about itself; see omamori-cloud diagnostics")
    _add_command(command, Verb.DIAGNOSTICS)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function stands in `run`."""
    parser = argparse.ArgumentParser(prog="omamori-ota", description="Keys, repository and identities of Omamori.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_firmware_commands(commands, _add_repository_commands(commands))
    add_candidate_commands(commands, CandidateCommands(_repository, _broker), _add_candidate)
    _add_identity_commands(commands)
    add_factory_commands(commands)
    add_revocation_commands(commands)
    _add_box_commands(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (OtaError, ProtocolError) as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return 1
    except OSError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0
