"""Everything around the box: the wires, the internet's servers, the operator's services. The box itself is not here.

Start order is an `ExitStack`; whatever was started is stopped in reverse order, however the run ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import addresses, configs
from .addresses import ATTACKER, BLOCK_LISTED, C2, MAIL, SERVER, SERVICES, TERMINALS
from .desired_desk import DesiredDesk
from .errors import SetupError
from .feed_desk import FeedDesk
from .firmware_desk import FirmwareDesk
from .journal import Journal
from .listeners import Listener
from .mailbox import Mailbox
from .namespace import Namespace
from .office import Client
from .portal import Portal
from .products import client_tls, program, server_tls
from .run import require
from .service import Service
from .settings import SERIAL, LabSettings
from .topology import Topology
from .web_content import write_web_certificate, write_web_root

BLOCK_LISTED_PORT = 9000
_PROGRAMS = ("ip", "nsenter", "unshare", "mount", "dnsmasq", "nginx", "mosquitto", "curl", "dig", "ping")

Step = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Listeners:
    """The small servers that remember what reached them."""

    office_server: Listener
    c2: Listener
    block_listed: Listener
    block_listed_ipv6: Listener

    @property
    def all(self) -> tuple[Listener, ...]:
        """Every one of them."""
        return (self.office_server, self.c2, self.block_listed, self.block_listed_ipv6)


class Surroundings:
    """Office, internet and operator of one lab.

    Args:
        settings: Of the lab.
        journal: Where everything that is started is noted.
        step: Told what is being started.
    """

    def __init__(self, settings: LabSettings, journal: Journal, step: Step) -> None:
        self._settings = settings
        self._journal = journal
        self._step = step
        self._run = settings.run
        self.topology = Topology(journal, has_relay=settings.supervisor)
        self.resolver = self._run / "resolv.conf"
        self.feeds = FeedDesk(settings, self.topology.internet, self.resolver)
        self.firmware = FirmwareDesk(settings, self.feeds.repository)
        self.desired = DesiredDesk(settings, self.topology.internet, self.resolver, self._run / "tls-publisher")
        self.registry = self._run / "registry.db"
        self.big_file_sha256 = ""
        internet = self.topology.internet
        self.mailbox = Mailbox(internet, MAIL.ipv4)
        assert BLOCK_LISTED.ipv6 is not None
        self.listeners = Listeners(
            office_server=Listener(self.topology.terminals[SERVER.name], SERVER.ipv4, 80),
            c2=Listener(internet, C2.ipv4, 80),
            block_listed=Listener(internet, BLOCK_LISTED.ipv4, BLOCK_LISTED_PORT),
            block_listed_ipv6=Listener(internet, BLOCK_LISTED.ipv6, BLOCK_LISTED_PORT),
        )
        self.services: dict[str, Service] = {}
        self.portal = Portal(0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start everything; on leaving stop it again."""
        require(*_PROGRAMS)
        self._prepare()
        with contextlib.ExitStack() as stack:
            page = self._listen_page()
            stack.callback(page.close)
            self._step("network namespaces")
            stack.enter_context(self.topology.running())
            self._step("feed and repository")
            self.feeds.open()
            for service in self._make_services(page.fileno()):
                self._step(service.name)
                self.services[service.name] = service
                stack.callback(service.stop)
                service.start()
            for listener in self.listeners.all:
                stack.callback(listener.stop)
                listener.start()
            stack.callback(self.mailbox.stop)
            self.mailbox.start()
            yield

    def client(self, name: str) -> Client:
        """Return the person at a terminal of the office (``pc1``…) or at the internet's ``attacker`` address."""
        scratch = self._run / "scratch"
        ca = self._run / "tls-web" / "ca.pem"
        outside = {"attacker": ATTACKER, "block-listed": BLOCK_LISTED}
        if name in outside:
            return Client(
                self.topology.internet, outside[name].ipv4, scratch=scratch, resolver=self.resolver, ca=ca, binds=True
            )
        terminal = next(terminal for terminal in TERMINALS if terminal.name == name)
        return Client(self.topology.terminals[name], terminal.ipv4, scratch=scratch, resolver=self.resolver, ca=ca)

    @contextlib.contextmanager
    def captive(self) -> Iterator[None]:
        """Let the line answer in place of the operator's services, as one does that wants its owner to log in."""
        state = self._run / "nginx"
        portal = self._service(
            "captive-portal",
            [
                "nginx",
                "-e",
                "stderr",
                "-c",
                self._write("captive.conf", configs.captive_portal(state, self._run / "tls-web")),
            ],
            ready=lambda: self.internet.accepts(SERVICES.ipv4, addresses.BROKER_PORT),
        )
        with contextlib.ExitStack() as stack:
            for name in ("nginx", "mosquitto", "enrolment"):
                stack.callback(self.services[name].start)
                self.services[name].stop()
            stack.callback(portal.stop)
            portal.start()
            yield

    def _prepare(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)
        for path in (self._settings.logs, self._run / "scratch", self._run / "nginx", self._run / "mosquitto"):
            path.mkdir(parents=True)
        self._run.chmod(0o755)
        self.resolver.write_text(configs.resolver())
        self.big_file_sha256 = write_web_root(self._run / "www")
        write_web_certificate(self._run / "tls-web", configs.web_names())
        server_tls(self._settings.keys, self._run / "tls-services", SERVICES.domains)
        client_tls(self._settings.keys, self._run / "tls-ingest", configs.CLOUD_CLIENT)
        (self._run / "provision-template.json").write_text(
            json.dumps(configs.provision_template("demo"), indent=1) + "\n"
        )

    def _listen_page(self) -> socket.socket:
        try:
            page = socket.create_server(("127.0.0.1", self._settings.page_port), backlog=128)
        except OSError as err:
            raise SetupError(
                f"port {self._settings.page_port} of this machine is taken: {err.strerror}",
                hint="choose another one: --page-port 8090",
            ) from err
        self.portal = Portal(page.getsockname()[1])
        return page

    def _write(self, name: str, text: str) -> Path:
        path = self._run / name
        path.write_text(text)
        return path

    def _make_services(self, page: int) -> Iterator[Service]:
        internet = self.topology.internet
        keys, tls = self._settings.keys, self._run / "tls-services"

        yield self._service(
            "dnsmasq",
            ["dnsmasq", "--conf-file=" + str(self._write("dnsmasq.conf", configs.dnsmasq(self._run)))],
            ready=lambda: internet.accepts(addresses.ROUTER_IPV4, 53),
        )
        nginx = configs.nginx(
            self._run / "nginx",
            web_root=self._run / "www",
            repository=self.feeds.served,
            web_tls=self._run / "tls-web",
            services_tls=tls,
        )
        yield self._service(
            "nginx",
            ["nginx", "-e", "stderr", "-c", self._write("nginx.conf", nginx)],
            ready=lambda: internet.accepts(SERVICES.ipv4, 443),
        )
        broker = self._run / "mosquitto"
        (broker / "mosquitto.acl").write_text(configs.mosquitto_acl())
        (broker / "mosquitto.acl").chmod(0o600)
        yield self._service(
            "mosquitto",
            ["mosquitto", "-c", self._write("mosquitto.conf", configs.mosquitto(broker, tls))],
            ready=lambda: internet.accepts(SERVICES.ipv4, addresses.BROKER_PORT),
        )
        enrolment: list[str | Path] = [
            "enrolment",
            "serve",
            "--keys",
            keys,
            "--registry",
            self.registry,
            "--tls-dir",
            tls,
        ]
        enrolment += ["--listen", f"{SERVICES.ipv4}:{addresses.ENROLMENT_PORT}"]
        yield self._service(
            "enrolment",
            [program("omamori-ota"), *enrolment],
            ready=lambda: internet.accepts(SERVICES.ipv4, addresses.ENROLMENT_PORT),
        )
        cloud = configs.cloud(
            self._run / "cloud",
            self._run / "tls-ingest",
            self.feeds.book,
            listen=f"fd://{page}",
            names={SERIAL: "本社"},
        )
        (self._run / "cloud").mkdir()
        yield self._service(
            "cloud",
            [program("omamori-cloud"), "serve", "--config", self._write("cloud.toml", cloud)],
            ready=self.portal.healthy,
            pass_fds=(page,),
        )

    def _service(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        ready: Callable[[], bool],
        pass_fds: tuple[int, ...] = (),
    ) -> Service:
        return Service(
            name,
            self.topology.internet.command(argv, resolver=self.resolver),
            logs=self._settings.logs,
            journal=self._journal,
            ready=ready,
            pass_fds=pass_fds,
        )

    @property
    def internet(self) -> Namespace:
        """The namespace of router and internet."""
        return self.topology.internet
