"""Topics, device ids, MAC addresses and closed choices: the small words that everything else is made of."""

import pytest

from omamori_protocol import vocabulary
from omamori_protocol.device import check_device_id, format_mac, parse_mac
from omamori_protocol.errors import MalformedError
from omamori_protocol.topics import (
    MAX_TOPIC_LENGTH,
    Leaf,
    any_device,
    device_topic,
    feed_announcement,
    feed_target,
    parse_device_topic,
)
from omamori_protocol.vocabulary import FeedState, Function, Severity, WireEnum

CHOICES = [
    item for item in vars(vocabulary).values() if isinstance(item, type) and issubclass(item, WireEnum) and len(item)
]


@pytest.mark.parametrize("leaf", [Leaf.HEARTBEAT, Leaf.STATE, Leaf.EVENT, Leaf.REPORTED])
def test_device_topic_and_back(leaf: Leaf) -> None:
    topic = device_topic("ZA35-000001", leaf)
    assert topic == f"omamori/v1/ZA35-000001/{leaf.value}"
    assert parse_device_topic(topic) == ("ZA35-000001", leaf)
    assert any_device(leaf) == f"omamori/v1/+/{leaf.value}"


@pytest.mark.parametrize(
    "topic",
    [
        "omamori/v1/announce/feed/demo",
        "omamori/v1/ZA35-000001",
        "omamori/v1/ZA35-000001/cmd",
        "omamori/v1/ZA35-000001/evt/x",
        "omamori/v1/za35-000001/evt",
        "omamori/v1/+/evt",
        "omamori/v1/-ZA35/evt",
        "omamori/v2/ZA35-000001/evt",
        "x/omamori/v1/ZA35-000001/evt",
        "omamori/v1/ZA35-000001/evt\n",
        "omamori/v1/" + "A" * 33 + "/evt",
        "omamori/v1/" + "A" * MAX_TOPIC_LENGTH + "/evt",
        "",
    ],
)
def test_not_a_devices_topic(topic: str) -> None:
    with pytest.raises(MalformedError):
        parse_device_topic(topic)


def test_no_topic_for_a_device_that_cannot_be() -> None:
    with pytest.raises(MalformedError):
        device_topic("ZA35/#", Leaf.EVENT)


def test_feed_names() -> None:
    assert feed_announcement("demo") == "omamori/v1/announce/feed/demo"
    assert feed_target("demo") == "feed/demo/pack.tar.gz"
    for channel in ("", "Demo", "a/b", "+", "#", "../x", "a" * 33, "-a"):
        with pytest.raises(MalformedError):
            feed_announcement(channel)
        with pytest.raises(MalformedError):
            feed_target(channel)


@pytest.mark.parametrize("name", ["ZA35", "A" * 32, "0-0-0"])
def test_device_ids(name: str) -> None:
    assert check_device_id(name) == name


@pytest.mark.parametrize("name", ["ABC", "A" * 33, "-ABC", "ABc1", "ABC D", "ABC\n", "ＡＢＣＤ", None, 1234])
def test_not_device_ids(name: object) -> None:
    with pytest.raises(MalformedError):
        check_device_id(name)  # type: ignore[arg-type]


def test_mac_addresses() -> None:
    mac = bytes.fromhex("025e10000001")
    assert format_mac(mac) == "02:5e:10:00:00:01"
    assert parse_mac("02-5E-10-00-00-01") == parse_mac("02:5e:10:00:00:01") == mac
    for text in ("", "02:5e:10:00:00", "02:5e:10:00:00:01:02", "025e10000001", "02:5e:10:00:00:0g", "2:5e:10:0:0:1"):
        with pytest.raises(MalformedError):
            parse_mac(text)


@pytest.mark.parametrize("choice", CHOICES)
def test_words_of_a_choice_and_back(choice: type[WireEnum]) -> None:
    for member in choice:
        assert choice.from_word(member.word) is member
        assert member.word == member.word.lower()
    with pytest.raises(ValueError, match="is not one of"):
        choice.from_word("no such thing")


def test_numbers_on_the_wire_never_change() -> None:
    assert [member.value for member in Function] == [1, 2, 3, 4, 5, 6, 7]
    assert {member.word: member.value for member in FeedState} == {
        "none": 0,
        "active": 1,
        "refused": 2,
        "rolled-back": 3,
        "stale": 4,
    }
    assert Severity.THREE.stars == "★★★"
