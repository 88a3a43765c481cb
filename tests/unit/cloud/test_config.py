"""The configuration file: strict, bounded, with defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_cloud.config import MAX_BYTES, MAX_NAMES, Limits, load_config, parse_config
from omamori_cloud.errors import ConfigError

MINIMAL = """
[broker]
host = "broker.omamori.test"
ca = "ca.pem"
cert = "ingest.crt"
key = "/keys/ingest.key"
"""


def parse(text: str) -> object:
    return parse_config(text.encode(), Path("/etc/omamori"))


def test_minimal_file_gets_the_defaults() -> None:
    config = parse_config(MINIMAL.encode(), Path("/etc/omamori"))
    assert config.broker.port == 8883
    assert config.broker.ca == Path("/etc/omamori/ca.pem")
    assert config.broker.key == Path("/keys/ingest.key")
    assert config.listen == "127.0.0.1:8080"
    assert config.default_language == "ja"
    assert config.database_url == "sqlite:////var/lib/omamori-cloud/cloud.db"
    assert config.limits == Limits()


def test_everything_can_be_set() -> None:
    config = parse_config(
        (
            'state_dir = "state"\nlisten = "fd://3"\noffline_after_s = 90\ndefault_language = "en"\nhosts = ["x"]\n'
            + MINIMAL
            + 'port = 1\n[database]\nurl = "postgresql+psycopg://db/omamori"\npassword_file = "secret"\n'
            + '[names]\nZA35-000001 = "本社"\n'
            + "[limits]\nrefusals_per_device = 7\n"
        ).encode(),
        Path("/srv"),
    )
    assert config.state_dir == Path("/srv/state")
    assert config.names == {"ZA35-000001": "本社"}
    assert config.limits.refusals_per_device == 7
    assert config.offline_after_s == 90
    assert config.database_password_file == Path("/srv/secret")


def test_the_default_database_lies_in_the_state_directory() -> None:
    config = parse_config(('state_dir = "state"\n' + MINIMAL).encode(), Path("/srv"))
    assert config.database_url == "sqlite:////srv/state/cloud.db"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("nonsense = 1\n" + MINIMAL, "nonsense"),
        (MINIMAL + "prot = 8883\n", "broker.prot"),
        (MINIMAL + "[databse]\nurl = 'x'\n", "databse"),
        (MINIMAL + "[database]\nurl = 'sqlite:////x'\npool = 3\n", "database.pool"),
        (MINIMAL + "[limits]\nevents = 3\n", "limits.events"),
        (MINIMAL + "port = 65536\n", "broker.port"),
        (MINIMAL + "port = 0\n", "broker.port"),
        (MINIMAL + "port = true\n", "broker.port"),
        (MINIMAL.replace("broker.omamori.test", "a b"), "broker.host"),
        (MINIMAL.replace('ca = "ca.pem"', ""), "broker.ca"),
        ("listen = 8080\n" + MINIMAL, "listen"),
        ("default_language = 'fr'\n" + MINIMAL, "default_language"),
        ("offline_after_s = 4\n" + MINIMAL, "offline_after_s"),
        ("hosts = 'x'\n" + MINIMAL, "hosts"),
        ("broker = 3", "broker"),
        (MINIMAL + "[names]\nlower = 'x'\n", "names.lower"),
        (MINIMAL + f"[names]\nZA35-000001 = '{'x' * 61}'\n", "names.ZA35-000001"),
        (MINIMAL + "[limits]\ndevices = 1000001\n", "limits.devices"),
        ("= = =", "configuration"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.where == where


def test_one_byte_more_than_the_bound() -> None:
    padding = MAX_BYTES - len(MINIMAL.encode())
    parse(MINIMAL + "#" * padding)
    with pytest.raises(ConfigError, match="65537 bytes"):
        parse(MINIMAL + "#" * (padding + 1))


def test_one_name_more_than_the_bound() -> None:
    names = "".join(f'ZA-{number:06d} = "x"\n' for number in range(MAX_NAMES))
    parse(MINIMAL + "[names]\n" + names)
    with pytest.raises(ConfigError, match="1001 names"):
        parse(MINIMAL + "[names]\n" + names + 'ZB-000000 = "x"\n')


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text(MINIMAL)
    assert load_config(tmp_path / "cloud.toml").broker.ca == tmp_path / "ca.pem"
