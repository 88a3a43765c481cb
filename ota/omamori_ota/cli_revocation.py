"""The commands that take boxes off: `revoke` and `crl`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from omamori_protocol.device import check_device_id

from . import revocation
from .boxes import RevocationReason
from .broker import BrokerAddress, end_connection
from .cli_factory import add_lists, add_register, list_places, open_registry
from .cli_output import print_json
from .clock import system_clock
from .errors import RejectedError
from .keys import KeyDirectory

_Commands = Any  # argparse keeps the type of add_subparsers to itself


def _revoke(options: argparse.Namespace) -> None:
    """Register, list, broker, connection, in this order: a box that is thrown out must not get in again."""
    serial = check_device_id(options.serial)
    broker = None
    if options.broker is not None:
        is_read = options.broker_pid is not None or options.carry is not None
        is_told = options.crl_dir is not None or (options.crl is not None and is_read)
        if options.tls_dir is None or not is_told:
            raise RejectedError(
                "--broker needs --tls-dir, and --crl-dir, or --crl with --broker-pid or --carry",
                hint="else the box would be back a moment later",
            )
        broker = BrokerAddress.parse(options.broker, options.tls_dir)
        broker.tls_context()  # before anything is revoked: a wrong directory is noticed now
    registry = open_registry(options)
    count = revocation.revoke(registry, serial, RevocationReason(options.reason), system_clock)
    list_places(options).publish(KeyDirectory(options.keys), registry, system_clock)
    if broker is not None:
        end_connection(broker, serial)
    if options.json:
        print_json({"serial": serial, "reason": options.reason, "certificates": count, "ended": broker is not None})
        return
    print(f"revoked {serial} ({options.reason}): {count} certificate{'' if count == 1 else 's'}")
    if broker is None:
        print("A connection that it has goes on: give --broker with its lists; again does no harm.")


def _crl(options: argparse.Namespace) -> None:
    if options.crl is None and options.crl_dir is None:
        raise RejectedError("nowhere to write to", hint="--crl FILE for mosquitto, --crl-dir DIR for RabbitMQ")
    list_places(options).publish(KeyDirectory(options.keys), open_registry(options), system_clock)
    print(f"revocation lists written, good for {revocation.LIST_LIFETIME.days} days")


def add_revocation_commands(commands: _Commands) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser("revoke", help="take a box off: it may neither connect nor renew")
    add_register(command)
    command.add_argument("serial", metavar="SERIAL", help="the box")
    command.add_argument("--reason", required=True, choices=[str(reason) for reason in RevocationReason])
    add_lists(command)
    command.add_argument(
        "--broker", metavar="mqtts://HOST:PORT", help="the services' port of the broker: end the box's connection"
    )
    command.add_argument("--tls-dir", metavar="DIR", type=Path, help="TLS directory of a service such as `publisher`")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_revoke)

    command = commands.add_parser("crl", help="write the revocation lists anew; once a day, before they expire")
    add_register(command)
    add_lists(command)
    command.set_defaults(run=_crl)
