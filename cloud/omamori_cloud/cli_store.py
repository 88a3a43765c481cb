"""`omamori-cloud retention`, `backup` and `restore`: what the store keeps for how long, and a second copy of it."""

from __future__ import annotations

import argparse
import dataclasses
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from .cli_output import print_json, print_table
from .clock import system_clock
from .config import CloudConfig
from .errors import QueryError
from .store.backup import BackupReport, read_backup, write_backup
from .store.customers import CustomerStore
from .store.database import check_schema, open_database
from .store.sweeper import Sweeper


def add_store_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands; `common` has the option for the configuration."""
    group = commands.add_parser("retention", help="how long things are kept, and deletion on request").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    show = group.add_parser("show", parents=[common], help="say how long what is kept, and list customers")
    show.add_argument("--json", action="store_true", help="for scripts")
    group.add_parser("sweep", parents=[common], help="do now what `serve` does every hour")
    contract = group.add_parser("contract", parents=[common], help="make a customer, or change the contract")
    contract.add_argument("customer", metavar="CUSTOMER")
    contract.add_argument("--alert-days", type=int, metavar="N", help="keep alerts so long (without: as long as usual)")
    assign = group.add_parser("assign", parents=[common], help="say whose boxes they are")
    assign.add_argument("customer", metavar="CUSTOMER")
    assign.add_argument("devices", metavar="DEVICE", nargs="+")
    forget = group.add_parser("forget", parents=[common], help="delete all that is known of a box or a customer")
    subject = forget.add_mutually_exclusive_group(required=True)
    subject.add_argument("--device", metavar="ID")
    subject.add_argument("--customer", metavar="CUSTOMER", help="with all boxes")
    forget.add_argument("--yes", action="store_true", help="really; there is no way back but a backup")
    forget.add_argument("--json", action="store_true", help="for scripts: rows by table")

    backup = commands.add_parser("backup", parents=[common], help="write the whole store into a new file")
    backup.add_argument("--out", type=Path, metavar="FILE", required=True, help="for example cloud-2026-11-22.json.gz")
    restore = commands.add_parser("restore", parents=[common], help="make the store of a backup, on either engine")
    restore.add_argument("backup", type=Path, metavar="FILE")


def _open(config: CloudConfig) -> Engine:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    check_schema(engine)
    return engine


def _retention(config: CloudConfig, arguments: argparse.Namespace) -> int:
    if arguments.action == "forget" and not arguments.yes:
        raise QueryError("yes", "is missing", hint="--yes deletes for good")
    engine = _open(config)
    store = CustomerStore(engine)
    match arguments.action:
        case "show":
            _show(config, store, as_json=arguments.json)
        case "sweep":
            sweeper = Sweeper(engine, config.retention, clock=system_clock, stop=threading.Event())
            for name, count in sorted(sweeper.sweep().items()):
                print(f"{name}: {count}")
        case "contract":
            store.set_contract(arguments.customer, arguments.alert_days, system_clock())
        case "assign":
            for device in arguments.devices:
                store.assign(arguments.customer, device)
        case "forget":
            _forget(store, arguments)
    return 0


def _show(config: CloudConfig, store: CustomerStore, *, as_json: bool) -> None:
    kept = dataclasses.asdict(config.retention)
    customers = store.customers()
    if as_json:
        print_json({"kept": kept, "customers": [dataclasses.asdict(customer) for customer in customers]})
        return
    rows = [(name, str(value)) for name, value in kept.items()]
    print_table(("kept", "days"), rows)
    print_table(
        ("customer", "alerts, days", "boxes"),
        [
            (customer.id, str(customer.alert_days or config.retention.alert_days), " ".join(customer.devices))
            for customer in customers
        ],
    )


def _forget(store: CustomerStore, arguments: argparse.Namespace) -> None:
    now_ms = system_clock()
    if arguments.device:
        gone = store.forget_device(arguments.device, now_ms)
    else:
        gone = store.forget_customer(arguments.customer, now_ms)
    if arguments.json:
        print_json({"deleted": gone})
        return
    for name, count in gone.items():
        print(f"{name}: {count}")
    print("Backups still hold it until they are deleted; a box that goes on sending becomes a new one.")


def _backup(config: CloudConfig, arguments: argparse.Namespace) -> int:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    _say(arguments.out, write_backup(engine, arguments.out))
    return 0


def _restore(config: CloudConfig, arguments: argparse.Namespace) -> int:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    _say(arguments.backup, read_backup(engine, arguments.backup))
    return 0


def _say(path: Path, report: BackupReport) -> None:
    print(f"{path}: schema {report.schema}, {sum(report.rows.values())} rows")
    for name, count in sorted(report.rows.items()):
        print(f"{name}: {count}")


STORE_COMMANDS = {"retention": _retention, "backup": _backup, "restore": _restore}
