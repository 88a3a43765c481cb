"""`omamori-cloud broker-files`, and what a cluster's node is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path, PurePosixPath

import pytest

from omamori_agent.link.road import WEBSOCKET_PATH as ROAD_PATH
from omamori_cloud.broker_cluster import (
    MAX_NODES,
    MODULES,
    WEBSOCKET_PATH,
    ClusterFiles,
    rules_application,
    rules_source,
)
from omamori_cloud.broker_files import READ_BY_BOX, WRITTEN_BY_BOX, access_list
from omamori_cloud.cli import main
from omamori_cloud.errors import ConfigError
from omamori_protocol.topics import Leaf

NODES = tuple(f"rabbit@b{n}.example" for n in (1, 2, 3))
TLS, CLIENTS = Path("/etc/omamori-broker/tls"), Path("/etc/omamori-broker/clients.pem")
COMMON = ["broker-files", "--tls", str(TLS), "--clients", str(CLIENTS)]


def made(**changes: object) -> ClusterFiles:
    values: dict[str, object] = {"nodes": NODES, "tls": TLS, "clients": CLIENTS}
    return ClusterFiles(**(values | changes))  # type: ignore[arg-type]


def test_only_encrypted_doors_with_certificates_are_open() -> None:
    lines = made(address="192.0.2.1").settings().splitlines()
    assert {line for line in lines if "listeners" in line} == {
        "listeners.tcp = none",
        "listeners.ssl.1 = 192.0.2.1:5671",
        "mqtt.listeners.tcp = none",
        "mqtt.listeners.ssl.1 = 192.0.2.1:8883",
    }
    assert not [line for line in lines if line.startswith("ssl_options")], "what stands in advanced.config replaces it"
    for setting in ("{versions, ['tlsv1.3']}", "{verify, verify_peer}", "{fail_if_no_peer_cert, true}"):
        assert setting in made().advanced()
    assert "auth_mechanisms.1 = EXTERNAL" in lines
    assert "mqtt.allow_anonymous = false" in lines


def test_both_brokers_have_one_table_of_topics() -> None:
    application, mosquitto = rules_application(), access_list()
    for leaf in (*WRITTEN_BY_BOX, *READ_BY_BOX):
        assert f'<<"{leaf.removesuffix("/#")}">>' in application
        assert f"omamori/v1/%u/{leaf}" in mosquitto
    assert {leaf.removesuffix("/#") for leaf in (*WRITTEN_BY_BOX, *READ_BY_BOX)} == set(Leaf)


def test_the_plugin_has_all_its_modules() -> None:
    files = made().files()
    for module in MODULES:
        assert f"-module({module})." in rules_source(module)
        assert rules_source(module) in files.values()
    assert "{modules, [omamori_rules, omamori_leftovers]}" in rules_application()


def test_revocation_lists() -> None:
    assert "crl" not in made().advanced()
    advanced = made(revoked=Path("/etc/omamori-broker/crl")).advanced()
    assert "{crl_check, peer}" in advanced
    assert '{dir, "/etc/omamori-broker/crl"}' in advanced


def test_websockets_have_the_same_door() -> None:
    assert "web_mqtt" not in made().files()[PurePosixPath("enabled_plugins")]
    files = made(websocket_port=443, address="192.0.2.1", revoked=Path("/etc/crl")).files()
    assert "rabbitmq_web_mqtt" in files[PurePosixPath("enabled_plugins")]
    advanced = files[PurePosixPath("advanced.config")]
    for setting in (
        "{tcp_config, []}",  # else it listens unencrypted
        '{ip, "192.0.2.1"}, {port, 443}',
        '{ws_path, "/mqtt"}',
    ):
        assert setting in advanced
    for setting in ("{crl_check, peer}", "{verify, verify_peer}", "{fail_if_no_peer_cert, true}", "'tlsv1.3'"):
        assert advanced.count(setting) == 2
    assert WEBSOCKET_PATH == ROAD_PATH


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"nodes": ()}, "node"),
        ({"nodes": NODES[:2]}, "node"),
        ({"nodes": (NODES[0],) * 3}, "node"),
        ({"nodes": tuple(f"rabbit@b{n}.example" for n in range(MAX_NODES + 2))}, "node"),
        ({"nodes": ("rabbit@b1\nlisteners.tcp.1 = 5672",)}, "node"),
        ({"nodes": ("b1.example",)}, "node"),
        ({"tls": Path("/etc/a b")}, "tls"),
        ({"clients": Path("relative")}, "clients"),
        ({"revoked": Path('/etc/"}, {x')}, "revoked"),
        ({"folder": Path("/etc/$(reboot)")}, "folder"),
        ({"address": "0.0.0.0\nx"}, "address"),
        ({"memory_mib": 127}, "memory"),
    ],
)
def test_what_cannot_work_is_named(changes: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**changes)
    assert caught.value.where == where


def test_largest_cluster_and_smallest_memory() -> None:
    made(nodes=tuple(f"rabbit@b{n}.example" for n in range(MAX_NODES)), memory_mib=128)
    assert "USE_LONGNAME=false" in made(nodes=("rabbit@b1",)).environment()


def test_the_command_writes_a_cluster_s_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [option for node in NODES for option in ("--node", node)]
    line = [*COMMON, "--kind", "rabbitmq", "--out", str(tmp_path / "new"), *nodes, "--json"]
    for _ in range(2):  # again over what is there
        assert main(line) == 0
        names = json.loads(capsys.readouterr().out)["files"]
    assert set(names) == {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert (tmp_path / "new/rabbitmq.conf").read_text() == made().settings()
    assert stat.S_IMODE((tmp_path / "new/rabbitmq.conf").stat().st_mode) == 0o644
    assert main(line[:-1]) == 0
    assert "erlc -Werror" in capsys.readouterr().out


def test_the_command_writes_mosquitto_s_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*COMMON, "--kind", "mosquitto", "--out", str(tmp_path), "--services", "/etc/omamori-broker/services.pem"]
    assert main([*line, "--websocket-port", "443", "--crl", "/etc/omamori-broker/crl.pem"]) == 0
    text = (tmp_path / "mosquitto.conf").read_text()
    assert [word for word in text.splitlines() if word.startswith("listener")] == [
        "listener 8883",
        "listener 8884",
        "listener 443",
    ]
    assert text.count("crlfile /etc/omamori-broker/crl.pem") == 3
    assert "pid_file /run/mosquitto/mosquitto.pid\n" in text
    assert (tmp_path / "mosquitto.acl").read_text() == access_list()
    assert "/var/lib/mosquitto/mosquitto.acl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--kind", "mosquitto"], "services: is missing"),
        (["--kind", "rabbitmq"], "node: is missing"),
        (["--kind", "rabbitmq", "--node", "b1", "--services", "/x"], "services: means nothing to rabbitmq"),
        (["--kind", "mosquitto", "--services", "/x", "--node", "rabbit@b1"], "node: means nothing to mosquitto"),
        (["--kind", "mosquitto", "--services", "x"], "services: x is not absolute"),
        (["--kind", "mosquitto", "--services", "/x", "--service-port", "8883"], "port: 8883, 8883: each listener"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], what: str
) -> None:
    assert main([*COMMON, "--out", str(tmp_path), *options]) == 1
    assert what in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main([*COMMON, "--kind", "rabbitmq", "--node", "rabbit@b1", "--out", str(tmp_path / "file/below")]) == 1
    assert "file/below" in capsys.readouterr().err


def test_help_tells_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["broker-files", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--kind mosquitto" in text
    assert "--kind rabbitmq" in text
