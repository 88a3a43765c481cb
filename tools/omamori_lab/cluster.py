"""Three nodes of the clustered broker, each in a network namespace of its own, on one switch.

The nodes are the product's configuration (`omamori_cloud.broker_cluster`) under the programs of a Debian tree that the
image builder makes (recipe `broker`), as an unprivileged user, each with its own data and the cluster's cookie. Boxes
and the service have a namespace as well; a name server there gives all nodes' addresses for one name, in an order that
changes with each question, as an operator's would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omamori_cloud.broker_cluster import MODULES, RULES_FOLDER, ClusterFiles
from omamori_firmware import enter
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree, obtain_tools
from omamori_protocol.durable import write_atomic

from .errors import LabError
from .journal import Journal
from .namespace import Namespace
from .run import run
from .service import Service
from .waiting import wait_for

HOST = "broker.omamori.test"
NODES = 3
MQTT_PORT, AMQP_PORT, WEBSOCKET_PORT = 8883, 5671, 8443
MEMORY_MIB = 400

_NETWORK = "10.99.0"
_CLIENTS_LAST, _RESOLVER_LAST = 100, 101
_USER = 65534  # nobody
_START_S = 240.0  # three Erlang machines at once, on two busy cores
_CTL_S = 120.0
_LIBRARY = "usr/lib/rabbitmq"
# One scheduler that does not spin: the nodes share two cores with everything else.
_ERLANG = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"


def broker_tree(note: Callable[[str], None] = lambda _: None) -> ToolsTree:
    """Return the tree with RabbitMQ, made if it is not in the cache (a minute, some 60 MB of packages)."""
    tree, _cached = obtain_tools(
        source_tree(), Cache(default_directory()), source_date_epoch=1_760_000_000, note=note, name="broker"
    )
    return tree


@dataclasses.dataclass(frozen=True)
class ClusterPki:
    """Files that the nodes serve TLS with; the certificate must be good for `HOST`.

    `revoked` is a directory of revocation lists, one for each authority, named ``*.pem``.
    """

    certificate: Path
    key: Path
    clients: Path
    revoked: Path


class Node:
    """One broker."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.number = number
        self.address = f"{_NETWORK}.{number}"
        self.name = f"rabbit@{self.address}"
        self.namespace = Namespace(cluster.journal, f"b{number}")
        self.folder = cluster.folder / f"node{number}"
        self.revoked = self.folder / "tls/crl"
        self._cluster = cluster
        self._service = Service(
            f"node{number}",
            self.namespace.command(self._command(["rabbitmq-server"])),
            logs=cluster.folder,
            journal=cluster.journal,
            ready=lambda: self.namespace.accepts(self.address, MQTT_PORT),
            env=self._environment(),
            start_timeout_s=_START_S,
        )

    def prepare(self, files: ClusterFiles, pki: ClusterPki, cookie: str) -> None:
        """Write everything that the node reads, compile the rules, and give it to the node's user."""
        config = self.folder / "etc"
        for folder in (config, self.folder / "data", self.folder / "log", self.revoked):
            folder.mkdir(parents=True, mode=0o700)
        for name, text in files.files().items():
            (config / name).parent.mkdir(parents=True, exist_ok=True)
            (config / name).write_text(text)
        shutil.copyfile(pki.certificate, self.folder / "tls/tls.crt")
        shutil.copyfile(pki.clients, self.folder / "tls/clients.pem")
        write_atomic(self.folder / "tls/tls.key", pki.key.read_bytes(), mode=0o600)
        write_atomic(self.folder / ".erlang.cookie", cookie.encode(), mode=0o600)
        self.revoke(pki.revoked)
        sources = [config / RULES_FOLDER / "src" / f"{module}.erl" for module in MODULES]
        run(
            self._cluster.inside(["erlc", "-Werror", "-o", config / RULES_FOLDER / "ebin", *sources], self.folder),
            timeout_s=_CTL_S,
            env={"ERL_LIBS": self._cluster.plugins},
        )
        for path in (self.folder, *self.folder.rglob("*")):
            if path.is_file():
                path.chmod(0o600)  # the certificate's key and the cookie are among them
            os.chown(path, _USER, _USER)

    def revoke(self, lists: Path) -> None:
        """Give the node revocation lists, also while it runs."""
        for path in lists.glob("*.pem"):
            write_atomic(self.revoked / path.name, path.read_bytes(), mode=0o600)
            os.chown(self.revoked / path.name, _USER, _USER)
        run(["openssl", "rehash", self.revoked], timeout_s=30)

    def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            LabError: It ended or did not become ready.
        """
        self._service.start()

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, nothing is written down any more."""
        self._service.stop(sig=signal.SIGKILL)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._service.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the Erlang machine while it runs."""
        return self._service.pid

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._service.log_tail()

    def control(self, *words: str) -> Any:
        """Run ``rabbitmqctl`` against this node and return its JSON answer.

        Raises:
            CommandError: The node did not answer, or refused.
        """
        line = self._command(["rabbitmqctl", "--longnames", "--node", self.name, "--formatter", "json", *words])
        done = run(self.namespace.command(line), timeout_s=_CTL_S, env=self._environment())
        return json.loads(done.output) if done.output.strip() else None

    def _command(self, argv: Sequence[str]) -> list[str]:
        identity = [f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs"]
        program = f"/{_LIBRARY}/bin/{argv[0]}"
        return self._cluster.inside(["setpriv", *identity, program, *argv[1:]], self.folder)

    def _environment(self) -> dict[str, str]:
        config = self.folder / "etc"
        return {
            "HOME": str(self.folder),
            "RUNNING_UNDER_SYSTEMD": "1",  # its script becomes the Erlang machine instead of waiting for it
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_CONF_ENV_FILE": str(config / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(config / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(config / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(config / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            "RABBITMQ_CTL_ERL_ARGS": _ERLANG,
        }


class Cluster:
    """The nodes, the switch, and the place of boxes and service; use `running`.

    Args:
        folder: For data, logs and settings.
        pki: The nodes' certificate and whom they let in.
        tree: See `broker_tree`.
    """

    def __init__(self, folder: Path, pki: ClusterPki, tree: ToolsTree) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self.clients = Namespace(self.journal, "clients")
        self.resolver_file = folder / "resolv.conf"
        found = sorted((tree.top / _LIBRARY / "lib").glob("rabbitmq_server-*/plugins"))
        if not found:
            raise LabError("the tree has no RabbitMQ")
        self.plugins = f"/{found[-1].relative_to(tree.top)}"
        self._tree = tree
        self._pki = pki
        self._switch = Namespace(self.journal, "switch")
        self.nodes = [Node(number, self) for number in range(1, NODES + 1)]

    def inside(self, argv: Sequence[str | Path], folder: Path) -> list[str]:
        """Return the command line that runs a program of the tree, which sees `folder` besides."""
        return enter.command(self._tree.top, "tools", [folder], argv)

    @contextlib.contextmanager
    def running(self) -> Iterator[Cluster]:
        """Make the wires, start all nodes, and take everything away afterwards."""
        with contextlib.ExitStack() as stack:
            self._wire(stack)
            self._start_resolver(stack)
            names = tuple(node.name for node in self.nodes)
            cookie = secrets.token_hex(20)
            for node in self.nodes:
                files = ClusterFiles(
                    nodes=names,
                    tls=node.folder / "tls",
                    clients=node.folder / "tls/clients.pem",
                    revoked=node.revoked,
                    address=node.address,
                    mqtt_port=MQTT_PORT,
                    amqp_port=AMQP_PORT,
                    websocket_port=WEBSOCKET_PORT,
                    folder=node.folder / "etc",
                    memory_mib=MEMORY_MIB,
                )
                node.prepare(files, self._pki, cookie)
                stack.callback(node.kill)
            self.start()
            yield self

    def start(self) -> None:
        """Start all nodes at once: the first start wants to see the others.

        Raises:
            LabError: One did not start.
        """
        failures: list[BaseException] = []

        def start(node: Node) -> None:
            try:
                node.start()
            except BaseException as err:  # noqa: BLE001 - handed over to the caller's thread
                failures.append(err)

        threads = [threading.Thread(target=start, args=(node,), name=node.name) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def members(self, asked: Node) -> set[str]:
        """Return the nodes that `asked` sees running."""
        return set(asked.control("cluster_status")["running_nodes"])

    def wait_whole(self, asked: Node) -> None:
        """Wait until `asked` sees every node.

        Raises:
            NotReadyError: It does not.
        """
        names = {node.name for node in self.nodes}
        wait_for(lambda: self.members(asked) == names, "every node in the cluster", timeout_s=_START_S)

    def _wire(self, stack: contextlib.ExitStack) -> None:
        places = [(node.namespace, node.address) for node in self.nodes]
        places.append((self.clients, f"{_NETWORK}.{_CLIENTS_LAST}"))
        for namespace in (self._switch, *(place for place, _ in places)):
            stack.callback(_delete, namespace)
            namespace.create()
        self._switch.configure(
            ["link add br0 type bridge", "link set br0 up", f"address add {_NETWORK}.{_RESOLVER_LAST}/24 dev br0"]
        )
        for number, (namespace, address) in enumerate(places):
            self._switch.configure(
                [
                    f"link add p{number} type veth peer name eth0 netns {namespace.name}",
                    f"link set p{number} master br0",
                    f"link set p{number} up",
                ]
            )
            namespace.configure(["link set eth0 up", f"address add {address}/24 dev eth0"])

    def _start_resolver(self, stack: contextlib.ExitStack) -> None:
        resolver = f"{_NETWORK}.{_RESOLVER_LAST}"
        self.resolver_file.write_text(f"nameserver {resolver}\noptions timeout:2 attempts:3\n")
        options = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]
        options += [f"--listen-address={resolver}", "--bind-interfaces", "--local=/omamori.test/", "--log-facility=-"]
        options += [f"--host-record={HOST},{node.address}" for node in self.nodes]
        service = Service(
            "resolver",
            self._switch.command(["dnsmasq", *options]),
            logs=self.folder,
            journal=self.journal,
            ready=lambda: self._switch.accepts(resolver, 53),
        )
        stack.callback(service.stop)
        service.start()


def _delete(namespace: Namespace) -> None:
    if namespace.path.exists():
        namespace.delete()
