"""The configuration files of the lab's servers, from the address tables. Text in, text out; nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omamori_cloud.broker_files import INGEST, PUBLISHER, BrokerFiles, Listener, access_list

from . import addresses
from .addresses import HOSTS, SERVICES, TERMINALS
from .topology import WAN_TAP

CLOUD_CLIENT = INGEST
PUBLISHER_CLIENT = PUBLISHER


def resolver(server: str = addresses.ROUTER_IPV4) -> str:
    """Return a resolv.conf that asks `server`, quickly and only once more."""
    return f"nameserver {server}\noptions timeout:2 attempts:2\n"


def dnsmasq(state: Path) -> str:
    """Return the configuration of the router's DHCP and DNS."""
    names = [
        f"address=/{domain}/{address}"
        for host in HOSTS
        for domain in host.domains
        for address in (host.ipv4, host.ipv6)
        if address
    ]
    terminals = [f"host-record={terminal.name}.office.test,{terminal.ipv4}" for terminal in TERMINALS]
    first, last = addresses.DHCP_RANGE
    lines = [
        "keep-in-foreground",
        "user=root",
        "pid-file=",
        "bind-interfaces",
        f"interface={WAN_TAP}",
        "except-interface=lo",
        "no-resolv",
        "no-hosts",
        "local=/test/",
        "local=/example/",
        f"dhcp-range={first},{last},1h",
        f"dhcp-option=option:router,{addresses.ROUTER_IPV4}",
        f"dhcp-option=option:dns-server,{addresses.ROUTER_IPV4}",
        "dhcp-authoritative",
        "no-ping",
        f"dhcp-leasefile={state / 'dnsmasq.leases'}",
        "log-facility=-",
        "log-dhcp",
        *names,
        *terminals,
    ]
    return "\n".join(lines) + "\n"


def _temporary(prefix: Path) -> str:
    """Return where a web server puts what it does not need for long."""
    kinds = {"client_body": "body", "proxy": "proxy", "fastcgi": "fastcgi", "uwsgi": "uwsgi", "scgi": "scgi"}
    return "\n".join(f"  {kind}_temp_path {prefix}.{suffix};" for kind, suffix in kinds.items())


def nginx(state: Path, *, web_root: Path, repository: Path, web_tls: Path, services_tls: Path) -> str:
    """Return the configuration of the internet's web servers and of the repository.

    Args:
        state: Directory for logs and temporary files.
        web_root: What every web server of the internet serves.
        repository: Link to the TUF repository that is served at the moment.
        web_tls: Directory with the web servers' ``tls.crt`` and ``tls.key``.
        services_tls: The same for the repository.
    """
    services = {SERVICES.ipv4, SERVICES.ipv6}
    own_listener = {addresses.C2.ipv4, addresses.BLOCK_LISTED.ipv4, addresses.BLOCK_LISTED.ipv6}
    reachable = [
        f"[{address}]" if ":" in address else address
        for host in HOSTS
        for address in (host.ipv4, host.ipv6)
        if address and address not in services | own_listener
    ]
    plain = "\n".join(f"    listen {address}:{port};" for address in reachable for port in addresses.WEB_PORTS)
    encrypted = "\n".join(f"    listen {address}:443 ssl;" for address in reachable)
    return f"""daemon off;
master_process off;
pid {state}/nginx.pid;
error_log {state}/nginx.error.log warn;
events {{ worker_connections 512; }}
http {{
  types {{ text/html html; text/plain txt; application/octet-stream bin com; application/json json; }}
  default_type application/octet-stream;
  access_log {state}/nginx.access.log;
{_temporary(state / "nginx")}
  sendfile on;
  server {{
    server_name _;
{plain}
{encrypted}
    ssl_certificate {web_tls}/tls.crt;
    ssl_certificate_key {web_tls}/tls.key;
    root {web_root};
  }}
  server {{
    server_name {SERVICES.domains[1]};
    listen {SERVICES.ipv4}:443 ssl;
    listen [{SERVICES.ipv6}]:443 ssl;
    ssl_certificate {services_tls}/tls.crt;
    ssl_certificate_key {services_tls}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {repository};
  }}
}}
"""


def captive_portal(state: Path, web_tls: Path) -> str:
    """Return the configuration of a line that answers in everybody's place until its owner has logged in.

    Args:
        state: Directory for logs and temporary files.
        web_tls: Directory with ``tls.crt`` and ``tls.key`` of somebody whom no box trusts.
    """
    ports = (443, addresses.ENROLMENT_PORT, addresses.BROKER_PORT)
    listen = "\n".join(f"    listen {SERVICES.ipv4}:{port} ssl;" for port in ports)
    return f"""daemon off;
master_process off;
pid {state}/captive.pid;
error_log {state}/captive.error.log warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
{_temporary(state / "captive")}
  server {{
{listen}
    ssl_certificate {web_tls}/tls.crt;
    ssl_certificate_key {web_tls}/tls.key;
    return 302 http://login.test/;
  }}
}}
"""


def _broker_files(state: Path, tls: Path) -> BrokerFiles:
    boxes = Listener(port=addresses.BROKER_PORT, address=str(SERVICES.ipv4), clients=tls / "clients.pem")
    return BrokerFiles(state=state, tls=tls, listeners=(boxes,), user="root")


def mosquitto(state: Path, tls: Path) -> str:
    """Return the configuration of the broker, as the product has it."""
    return _broker_files(state, tls).settings()


def mosquitto_acl() -> str:
    """Return who may do what."""
    return access_list()


def cloud(state: Path, tls: Path, book: Path, *, listen: str, names: dict[str, str]) -> str:
    """Return the configuration of `omamori-cloud`.

    Args:
        state: Its state directory.
        tls: TLS directory of the client `ingest`.
        book: The feed book.
        listen: An address, or ``fd://N``.
        names: What the owner calls a box, by serial.
    """
    named = "\n".join(f'{serial} = "{name}"' for serial, name in names.items())
    return f"""state_dir = "{state}"
listen = "{listen}"

[broker]
host = "{SERVICES.domains[0]}"
port = {addresses.BROKER_PORT}
ca = "{tls}/ca.pem"
cert = "{tls}/tls.crt"
key = "{tls}/tls.key"

[feed]
book = "{book}"
allow_file = "{state}/reports.tsv"

[names]
{named}
"""


def provision_template(channel: str) -> dict[str, object]:
    """Return what the factory fills with serial and claim."""
    broker, repository, enrolment = SERVICES.domains
    return {
        "format": 1,
        "enrolment_url": f"https://{enrolment}:{addresses.ENROLMENT_PORT}",
        "broker": {"host": broker, "port": addresses.BROKER_PORT},
        "repository_url": f"https://{repository}:443",
        "channel": channel,
    }


def web_names() -> Sequence[str]:
    """Return the names and addresses that the web servers' certificate carries."""
    names = [name for host in HOSTS for domain in host.domains for name in (domain, f"www.{domain}")]
    literal = [address for host in HOSTS for address in (host.ipv4, host.ipv6) if address]
    return [*names, *literal]
