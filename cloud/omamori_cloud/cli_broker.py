"""`omamori-cloud broker-files`: writes a broker's configuration for an operator to put in place."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from omamori_protocol.durable import write_atomic

from .broker_cluster import LIBRARY, RULES_FOLDER, ClusterFiles
from .broker_files import PID_FILE, BrokerFiles, Listener, access_list
from .cli_output import print_json
from .errors import ConfigError, SetupError

_FILE_MODE = 0o644  # there are no secrets in them
_DESCRIPTION = """\
Write the configuration of a broker: mosquitto, which is enough for one machine, or one of RabbitMQ's nodes.

  omamori-cloud broker-files --kind mosquitto --out DIR --tls /etc/omamori-broker/tls \\
    --clients /etc/omamori-broker/clients.pem --services /etc/omamori-broker/services.pem
  omamori-cloud broker-files --kind rabbitmq --out DIR --tls /etc/omamori-broker/tls \\
    --clients /etc/omamori-broker/clients.pem --node rabbit@b1.example --node rabbit@b2.example --node rabbit@b3.example

Nothing outside DIR is touched, and nothing in it is secret. docs/service.md tells what to do with the files.
"""


def add_broker_commands(commands: Any) -> None:
    """Add the command; it needs no configuration of the cloud."""
    parser = commands.add_parser(
        "broker-files",
        help="write a broker's configuration",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=("mosquitto", "rabbitmq"), required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where the files go; made when absent")
    parser.add_argument(
        "--tls", type=Path, metavar="DIR", required=True, help="on the broker's machine: tls.crt and tls.key"
    )
    parser.add_argument(
        "--clients", type=Path, metavar="FILE", required=True, help="authorities of boxes and services (PEM), there"
    )
    parser.add_argument("--address", metavar="IP", help="listen here only")
    parser.add_argument("--port", type=_port, metavar="N", default=8883, help="for boxes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="for scripts: the names of the files")
    parser.add_argument("--websocket-port", type=_port, metavar="N", help="for boxes behind strict firewalls: 443")
    one = parser.add_argument_group("mosquitto")
    one.add_argument("--services", type=Path, metavar="FILE", help="the services' authority alone (PEM), there")
    one.add_argument("--service-port", type=_port, metavar="N", default=8884, help="for services (%(default)s)")
    one.add_argument(
        "--state", type=Path, metavar="DIR", default=Path("/var/lib/mosquitto"), help="its data, there (%(default)s)"
    )
    one.add_argument("--crl", type=Path, metavar="FILE", help="revocation lists of all authorities (PEM), there")
    many = parser.add_argument_group("rabbitmq")
    many.add_argument("--node", metavar="NAME", action="append", default=[], help="each node: rabbit@host (repeat)")
    many.add_argument("--amqp-port", type=_port, metavar="N", default=5671, help="for services (%(default)s)")
    many.add_argument("--memory-mib", type=int, metavar="N", help="above this, a node takes nothing in")
    many.add_argument("--crl-dir", type=Path, metavar="DIR", help="revocation lists by hashed name, there")


def write_broker_files(arguments: argparse.Namespace) -> int:
    """Write the files and say what to do with them.

    Raises:
        SetupError: An option does not fit the kind, or a file cannot be written.
    """
    for option in ("tls", "clients", "services", "state", "crl", "crl_dir"):
        path = getattr(arguments, option)
        if path is not None and not path.is_absolute():
            raise ConfigError(
                option.replace("_", "-"), f"{path} is not absolute; it is a place on the broker's machine"
            )
    is_cluster = arguments.kind == "rabbitmq"
    foreign = ("services", "crl") if is_cluster else ("node", "memory_mib", "crl_dir")
    for option in foreign:
        if getattr(arguments, option):
            raise ConfigError(option.replace("_", "-"), f"means nothing to {arguments.kind}")
    files, steps = (_cluster if is_cluster else _mosquitto)(arguments)
    for name, text in files.items():
        target = arguments.out / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, text.encode(), mode=_FILE_MODE)
        except OSError as err:
            raise SetupError(f"{target}: {err.strerror}") from err
    if arguments.json:
        print_json({"files": [str(name) for name in files]})
    else:
        for name in files:
            print(arguments.out / name)
        print(steps)
    return 0


def _mosquitto(arguments: argparse.Namespace) -> tuple[Mapping[PurePosixPath, str], str]:
    if arguments.services is None:
        raise ConfigError(
            "services", "is missing", hint="the authority of the cloud's own certificates, without boxes'"
        )
    address = arguments.address or ""
    listeners = [
        Listener(port=arguments.port, address=address, clients=arguments.clients),
        Listener(port=arguments.service_port, address=address, clients=arguments.services, has_boxes=False),
    ]
    if arguments.websocket_port is not None:
        listeners.append(
            Listener(port=arguments.websocket_port, address=address, clients=arguments.clients, is_websocket=True)
        )
    ports = [listener.port for listener in listeners]
    if len(set(ports)) != len(ports):
        raise ConfigError("port", f"{', '.join(map(str, ports))}: each listener needs a port of its own")
    made = BrokerFiles(
        state=arguments.state,
        tls=arguments.tls,
        listeners=tuple(listeners),
        revoked=arguments.crl,
        pid_file=PID_FILE,
    )
    files = {PurePosixPath("mosquitto.conf"): made.settings(), PurePosixPath("mosquitto.acl"): access_list()}
    steps = (
        "Put mosquitto.conf in the place of /etc/mosquitto/mosquitto.conf, "
        f"mosquitto.acl at {made.access_list_path} (owner mosquitto, mode 0600), and restart mosquitto."
    )
    return files, steps


def _cluster(arguments: argparse.Namespace) -> tuple[Mapping[PurePosixPath, str], str]:
    if not arguments.node:
        raise ConfigError("node", "is missing", hint="name every node, this one too: --node rabbit@b1.example ...")
    made = ClusterFiles(
        nodes=tuple(arguments.node),
        tls=arguments.tls,
        clients=arguments.clients,
        revoked=arguments.crl_dir,
        mqtt_port=arguments.port,
        amqp_port=arguments.amqp_port,
        websocket_port=arguments.websocket_port,
        memory_mib=arguments.memory_mib,
        **({"address": arguments.address} if arguments.address else {}),
    )
    steps = (
        "On every node: put the files into /etc/rabbitmq, then\n"
        f"  cd /etc/rabbitmq/{RULES_FOLDER} && ERL_LIBS=$(echo {LIBRARY}) erlc -Werror -o ebin src/*.erl\n"
        "give all nodes the same /var/lib/rabbitmq/.erlang.cookie (owner rabbitmq, mode 0400), and start them together."
    )
    return made.files(), steps


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(text)
    return port
