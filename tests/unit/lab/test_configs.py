import ipaddress
import tomllib
from pathlib import Path

from omamori_lab import addresses, configs
from omamori_lab.addresses import HOSTS, TERMINALS
from omamori_protocol.device import check_device_id

STATE = Path("/lab")
RESERVED = (".test", ".example")
DOCUMENTATION = [
    ipaddress.ip_network(text) for text in ("192.168.10.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def test_only_reserved_names_and_documentation_addresses() -> None:
    for host in HOSTS:
        assert all(domain.endswith(RESERVED) for domain in host.domains)
        for address in filter(None, (host.ipv4, host.ipv6)):
            assert any(ipaddress.ip_address(address) in network for network in DOCUMENTATION)


def test_every_terminal_is_different() -> None:
    for field in ("name", "ipv4", "ipv6", "mac"):
        assert len({getattr(terminal, field) for terminal in TERMINALS}) == len(TERMINALS)


def test_a_name_below_a_domain_resolves_to_the_same_host() -> None:
    assert addresses.host_of("a.b.malware.test") is addresses.DANGEROUS
    assert addresses.host_of("notmalware.test") is addresses.WEB


def test_the_neighbour_is_not_below_the_dangerous_domain() -> None:
    assert addresses.NEIGHBOUR_DOMAIN.endswith("malware.test")
    assert not addresses.NEIGHBOUR_DOMAIN.endswith(".malware.test")


def test_every_domain_is_in_the_router_s_dns() -> None:
    text = configs.dnsmasq(STATE)
    for host in HOSTS:
        for domain in host.domains:
            assert f"address=/{domain}/{host.ipv4}\n" in text


def test_the_broker_takes_only_tls_13_with_certificates() -> None:
    lines = configs.mosquitto(STATE, Path("/tls")).splitlines()
    for line in ("tls_version tlsv1.3", "require_certificate true", "use_identity_as_username true"):
        assert line in lines
    assert "allow_anonymous false" in lines


def test_a_box_may_write_only_below_its_own_name() -> None:
    lines = configs.mosquitto_acl().splitlines()
    general = lines[: lines.index(f"user {configs.CLOUD_CLIENT}")]
    assert all(line.startswith("pattern ") for line in general if line)
    assert all("/%u/" in line for line in general if line.startswith("pattern write"))
    assert "pattern read omamori/v1/announce/#" in general


def test_only_the_publisher_may_announce() -> None:
    lines = configs.mosquitto_acl().splitlines()
    writers = [number for number, line in enumerate(lines) if line == "topic write omamori/v1/announce/#"]
    assert len(writers) == 1
    assert lines.index(f"user {configs.PUBLISHER_CLIENT}") < writers[0]


def test_only_the_publisher_may_say_how_a_box_shall_be() -> None:
    lines = configs.mosquitto_acl().splitlines()
    for leaf in ("desired", "cmd"):
        writers = [number for number, line in enumerate(lines) if "write" in line and line.endswith(f"/{leaf}")]
        assert len(writers) == 1
        assert lines.index(f"user {configs.PUBLISHER_CLIENT}") < writers[0]
        assert f"pattern read omamori/v1/%u/{leaf}" in lines
    assert "pattern write omamori/v1/%u/reported" in lines
    assert "topic read omamori/v1/+/reported" in lines


def test_the_cloud_s_configuration_is_toml() -> None:
    body = tomllib.loads(
        configs.cloud(STATE, Path("/tls"), Path("/feed.book"), listen="fd://3", names={"ZA35-000001": "本社"})
    )
    assert body["listen"] == "fd://3"
    assert [check_device_id(serial) for serial in body["names"]] == ["ZA35-000001"]


def test_web_servers_and_listeners_do_not_share_addresses() -> None:
    text = configs.nginx(STATE, web_root=STATE, repository=STATE, web_tls=STATE, services_tls=STATE)
    assert f"listen {addresses.WEB.ipv4}:8081;" in text
    assert f"listen [{addresses.WEB.ipv6}]:80;" in text
    assert addresses.C2.ipv4 not in text
    assert addresses.BLOCK_LISTED.ipv4 not in text
