"""The commands of the factory's register: `factory`, `labels`, `boxes`, `claim …`, `enrolment serve`, `enrolments`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import factory, labels
from .attempts import Attempt, AttemptLog, Cause
from .boxes import Box, ClaimState
from .cli_output import print_json
from .clock import parse_duration, system_clock
from .enrolment_server import ServerLimits
from .enrolment_service import ServiceConfig, parse_listen, serve
from .errors import RejectedError
from .factory import ProvisionTemplate
from .files import write_atomic
from .keys import DEVICE_CA, KeyDirectory
from .registry import Registry
from .revocation import ListPlaces

_Commands = Any  # argparse keeps the type of add_subparsers to itself
_SHOWN_HASH = 16


def open_registry(options: argparse.Namespace) -> Registry:
    """Return the register that the command line names."""
    return Registry(options.registry, KeyDirectory(options.keys).authority_certificate(DEVICE_CA))


def _factory(options: argparse.Namespace) -> None:
    template = ProvisionTemplate(options.provision_template)
    serials = factory.batch_serials(options.serial, options.count)
    lifetime = parse_duration(options.claim_valid)
    registry = open_registry(options)
    if options.count > 1:
        options.out.mkdir(mode=0o700, exist_ok=True)
    for serial in serials:
        out = options.out / f"{serial}.json" if options.count > 1 else options.out
        factory.provision(
            registry,
            template,
            serial,
            out,
            system_clock,
            replace=options.replace,
            lifetime=lifetime,
            is_held=options.hold,
        )
    if options.json:
        print_json({"serials": serials, "out": str(options.out)})
    else:
        print(f"registered {serials[0]}{f' to {serials[-1]}' if len(serials) > 1 else ''}; {options.out}")


def _labels(options: argparse.Namespace) -> None:
    serials = factory.batch_serials(options.serial, options.count)
    drawn = {serial: labels.label(serial, model=options.model, url=options.help_url) for serial in serials}
    options.out.mkdir(exist_ok=True)
    for serial, data in drawn.items():
        write_atomic(options.out / f"{serial}.svg", data)
    if options.json:
        print_json({"serials": serials, "out": str(options.out)})
    else:
        print(f"{len(serials)} label{'s' if len(serials) > 1 else ''} in {options.out}")


def _boxes(options: argparse.Namespace) -> None:
    boxes = [
        {
            "serial": box.serial,
            "claim": str(box.state),
            "made": box.made_at,
            "claim_until": box.claim_until,
            "held": box.is_held,
            "enrolled": box.enrolled_at,
            "key_sha256": box.key_hash.hex() if box.key_hash else None,
            "revoked": box.revoked_at,
            "reason": box.reason,
        }
        for box in open_registry(options).boxes()
    ]
    if options.json:
        print_json(boxes)
        return
    for box in boxes:
        held = " held" if box["held"] else ""
        print(f"{box['serial']:<32} claim {box['claim']:<7} made {box['made']:%Y-%m-%d}{held}")


def _claim_renew(options: argparse.Namespace) -> None:
    registry = open_registry(options)
    if registry.find(options.serial) is None:
        raise RejectedError(f"{options.serial} is not registered", hint="omamori-ota factory registers boxes")
    factory.provision(
        registry,
        ProvisionTemplate(options.provision_template),
        options.serial,
        options.out,
        system_clock,
        replace=True,
        lifetime=parse_duration(options.claim_valid),
        is_held=options.hold,
    )
    print(f"new claim for {options.serial}; {options.out}")
    print("What it was enrolled with is revoked: publish the list (omamori-ota crl).")


def _claim_hold(options: argparse.Namespace) -> None:
    with open_registry(options).changing() as change:
        box = change.find(options.serial)
        if box is None or box.state is not ClaimState.ISSUED:
            what = "not registered" if box is None else f"not waiting: its claim is {box.state}"
            raise RejectedError(f"{options.serial} is {what}")
        change.hold(options.serial, is_held=options.word == "hold")
    print(f"{options.serial} {'waits for approval' if options.word == 'hold' else 'may enrol'}")


def _enrolments(options: argparse.Namespace) -> None:
    registry = open_registry(options)
    boxes = {box.serial: box for box in registry.boxes()}
    attempts = AttemptLog(registry.path).attempts()
    shown = [item for item in attempts if options.all or item.cause is not Cause.ENROLLED]
    if options.json:
        print_json([_as_json(item, boxes.get(item.who)) for item in shown])
        return
    for item in shown:
        key = f" key {item.key_hash.hex()[:_SHOWN_HASH]}" if item.key_hash else ""
        skew = f" clock {item.skew_s:+d} s" if item.skew_s is not None and item.cause is Cause.CLOCK_WRONG else ""
        print(
            f"{item.who:<32} {item.cause:<20} {item.count:>6}x last {item.last_at:%Y-%m-%d %H:%M}Z"
            f" from {item.address}{key}{skew}\n{'':<33}{item.cause.meaning}"
        )
    if not shown:
        print("nobody waits")


def _as_json(item: Attempt, box: Box | None) -> dict[str, object]:
    return {
        "who": item.who,
        "box": box.state if box is not None else None,
        "cause": item.cause,
        "meaning": item.cause.meaning,
        "first": item.first_at,
        "last": item.last_at,
        "count": item.count,
        "address": item.address,
        "key_sha256": item.key_hash.hex() if item.key_hash else None,
        "clock_ahead_s": item.skew_s,
    }


def _enrolment_serve(options: argparse.Namespace) -> None:
    serve(
        ServiceConfig(
            keys=options.keys,
            registry=options.registry,
            listen=parse_listen(options.listen),
            tls_directory=options.tls_dir,
            limits=ServerLimits(requests_per_minute=options.requests_per_minute),
            lists=list_places(options),
        ),
        system_clock,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def add_register(parser: argparse.ArgumentParser) -> None:
    """Add key directory and register."""
    parser.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    parser.add_argument("registry", metavar="REGISTRY", type=Path, help="register file")


def list_places(options: argparse.Namespace) -> ListPlaces:
    """Return what `add_lists` has added."""
    return ListPlaces(file=options.crl, directory=options.crl_dir, broker_pid=options.broker_pid, carry=options.carry)


def add_lists(parser: argparse.ArgumentParser) -> None:
    """Add where brokers look for revocation lists."""
    parser.add_argument("--crl", metavar="FILE", type=Path, help="mosquitto's `crlfile`, written anew")
    parser.add_argument("--crl-dir", metavar="DIR", type=Path, help="RabbitMQ's directory of lists, written anew")
    parser.add_argument(
        "--broker-pid", metavar="FILE", type=Path, help="mosquitto's pid_file: let it read the list now (SIGHUP)"
    )
    parser.add_argument(
        "--carry",
        metavar="PROGRAM",
        type=Path,
        help="run it with the written file and directory: takes them to brokers on other machines, or fails",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_claim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provision-template", type=Path, required=True, metavar="FILE", help="provision.json without serial and claim"
    )
    parser.add_argument(
        "--claim-valid",
        default="730d",
        metavar="DURATION",
        help="how long the box may lie on a shelf before its first enrolment (default: %(default)s)",
    )
    parser.add_argument("--hold", action="store_true", help="somebody must approve it before it gets a certificate")


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serial", required=True, help="serial of the (first) box, for example ZA35-000001")
    parser.add_argument("--count", type=_positive, default=1, help="how many boxes, counting the serial up")


def add_factory_commands(commands: _Commands) -> None:
    """Add the commands to the parser."""
    command = commands.add_parser("factory", help="register boxes and write their provision.json")
    command.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    command.add_argument("registry", metavar="REGISTRY", type=Path, help="register file; made when missing")
    _add_batch(command)
    _add_claim(command)
    command.add_argument("--out", type=Path, required=True, help="file to write; with --count a directory")
    command.add_argument("--replace", action="store_true", help="new claim for boxes that are registered already")
    _add_json(command)
    command.set_defaults(run=_factory)

    command = commands.add_parser("labels", help="draw the labels of boxes")
    _add_batch(command)
    command.add_argument("--model", required=True, help="what the box is called, for example ZA-SA3500")
    command.add_argument(
        "--help-url",
        required=True,
        metavar="URL",
        help="where the help pages live; the code on the label adds the serial",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="one SVG for each box, 62 x 29 mm")
    _add_json(command)
    command.set_defaults(run=_labels)

    command = commands.add_parser("boxes", help="list the registered boxes")
    add_register(command)
    _add_json(command)
    command.set_defaults(run=_boxes)

    _add_claims(commands)
    _add_enrolment(commands)


def _add_claims(commands: _Commands) -> None:
    group = commands.add_parser("claim", help="a box's claim").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("renew", help="give a box a new claim: it lost its key, or was revoked")
    add_register(command)
    command.add_argument("serial", metavar="SERIAL", help="the box")
    _add_claim(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="its new provision.json")
    command.set_defaults(run=_claim_renew)
    for word, what in (
        ("hold", "let a box that has not enrolled wait for approval"),
        ("approve", "let a waiting box enrol, with the key that it asked with"),
    ):
        command = group.add_parser(word, help=what)
        add_register(command)
        command.add_argument("serial", metavar="SERIAL", help="the box")
        command.set_defaults(run=_claim_hold, word=word)


def _add_enrolment(commands: _Commands) -> None:
    group = commands.add_parser("enrolment", help="enrol boxes").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("serve", help="serve enrolment over HTTPS until SIGTERM or Ctrl-C")
    command.add_argument("--keys", type=Path, required=True, help="key directory")
    command.add_argument("--registry", type=Path, required=True, help="register file")
    command.add_argument("--listen", metavar="ADDR:PORT", required=True, help="port 0 takes any, and says which")
    command.add_argument("--tls-dir", metavar="DIR", type=Path, required=True, help="from omamori-ota pki server")
    command.add_argument("--requests-per-minute", type=_positive, default=30, help="per address (default: %(default)s)")
    add_lists(command)
    command.set_defaults(run=_enrolment_serve)

    command = commands.add_parser("enrolments", help="who asked for a certificate, and why it got none")
    add_register(command)
    command.add_argument("--all", action="store_true", help="also those who have got one")
    _add_json(command)
    command.set_defaults(run=_enrolments)
