"""Three nodes of the clustered broker, boxes with the agent's link on all of them, workers with a shared queue.

Nodes die by SIGKILL in the middle of it: every event is stored, once, the boxes are back on the nodes that live, and
the operator's words arrive. Attacks are in test_cluster_attacks.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from omamori_lab.cluster import Node
from omamori_ota.boxes import new_claim
from omamori_ota.clock import system_clock
from omamori_ota.enrolment import Enrolment
from omamori_ota.keys import DEVICE_CA
from omamori_ota.registry import Registry
from omamori_protocol.vocabulary import Presence
from sim.pki import Issued
from sim.postgres import Postgres

from .cluster_rig import BOX, BOXES, EVENTS_PER_BOX, OTHER, PREFIX, Rig, running_rig, wait_for

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1500)]

KEEPALIVE_S = 60


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("cluster"), postgres) as made:
        yield made


def test_a_node_dies_and_nothing_is_lost(rig: Rig) -> None:
    cluster = rig.cluster
    workers = [rig.start_worker(name) for name in ("a", "b")]
    boxes = rig.start_boxes("boxes")
    wait_for(boxes.all_connected, rig.logs)
    assert len(boxes.nodes()) >= 2, "by chance, boxes take different nodes"
    wait_for(lambda: rig.stored().total() > 100, rig.logs)

    by_address = {node.address: node for node in cluster.nodes}
    first = by_address[boxes.nodes().most_common(1)[0][0]]
    first.kill()
    killed_s = time.monotonic()
    wait_for(lambda: boxes.all_connected() and first.address not in boxes.nodes(), rig.logs)
    print(f"boxes back on {boxes.nodes()} after {time.monotonic() - killed_s:.1f} s")
    before = rig.stored().total()
    wait_for(lambda: rig.stored().total() > before + 100, rig.logs)

    workers[0].kill()  # what it had not acknowledged, the other one gets
    workers[0].wait(20)
    rig.start_worker("a")

    first.start()
    living = next(node for node in cluster.nodes if node is not first)
    cluster.wait_whole(living)
    second = living
    second.kill()
    wait_for(lambda: boxes.all_connected() and second.address not in boxes.nodes(), rig.logs)
    second.start()
    cluster.wait_whole(first)

    wanted = collections.Counter(f"{device} {number}" for device in BOXES for number in range(EVENTS_PER_BOX))
    wait_for(lambda: all(box["put"] == EVENTS_PER_BOX for box in boxes().values()), rig.logs)
    wait_for(lambda: all(box["waiting"] == 0 for box in boxes().values()), rig.logs)
    wait_for(lambda: len(rig.stored()) >= len(wanted), rig.logs)
    assert rig.stored() == wanted
    assert rig.count("refusals") == 0
    assert rig.count("heartbeats") > EVENTS_PER_BOX / 10 * len(BOXES) / 2  # QoS 0: some were under way
    assert {box.device: box.presence for box in rig.reader.boxes()} == dict.fromkeys(BOXES, Presence.ONLINE)

    def ours() -> list[dict[str, Any]]:
        queues = cluster.nodes[0].control("list_queues", "name", "type", "messages")
        return [queue for queue in queues if queue["name"].startswith("omamori.")]

    assert {queue["type"] for queue in ours()} <= {"quorum", "rabbit_quorum_queue"}
    wait_for(lambda: [queue["messages"] for queue in ours()] == [0, 0], rig.logs)  # it counts every few seconds
    boxes.stop()
    wait_for(lambda: all(box.presence is Presence.OFFLINE for box in rig.reader.boxes()), rig.logs)
    for name in ("a", "b"):
        assert "Traceback" not in rig.log(name)


def test_what_died_with_a_node_holds_nobody_up(rig: Rig) -> None:
    """Else one box that is switched off while its node is away would refuse announcements for everybody."""
    here, there, third = rig.cluster.nodes
    announcement = f"{PREFIX}/announce/feed/demo"

    def bound_to() -> set[str]:
        return {binding["destination_name"] for binding in here.control("list_bindings", "destination_name")}

    def is_taken() -> bool:
        said = rig.publish("publisher", announcement, "for all", at=here)
        return "exit 0" in said and "RC:131" not in said

    with contextlib.ExitStack() as stack:
        for name in (OTHER, BOX):
            stack.enter_context(rig.listening(name, f"{PREFIX}/announce/#", f"{PREFIX}/{name}/cmd", at=third))
        third.kill()
    with rig.listening(BOX, f"{PREFIX}/announce/#", f"{PREFIX}/{BOX}/cmd", at=there) as back:
        wait_for(is_taken, "the announcement to be taken")
        wait_for(lambda: f"mqtt-subscription-{OTHER}qos1" not in bound_to(), "the dead one's queue to go")
        assert f"mqtt-subscription-{BOX}qos1" in bound_to(), "its queue is a new one"
        assert "RC:16" in rig.publish("publisher", f"{PREFIX}/{OTHER}/cmd", "nobody hears it", at=here)
        assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{BOX}/cmd", "blink", at=here)
        back.wait(f"GOT {PREFIX}/{BOX}/cmd blink")
        assert f"{announcement} for all" in back.messages()
        third.start()
        rig.cluster.wait_whole(here)
        with rig.listening(OTHER, f"{PREFIX}/announce/#", at=third) as other:
            rig.publish("publisher", announcement, "all are back", at=here)
            for listener in (back, other):
                listener.wait(f"GOT {announcement} all are back")


def test_a_revoked_box_is_off_on_every_node_and_stays_off(rig: Rig) -> None:
    """The whole of `omamori-ota revoke`: register, lists, carried to each node, and the end of what is open."""
    registry = Registry(rig.folder / "boxes.db", rig.keys.authority_certificate(DEVICE_CA))
    enrolment = Enrolment(registry, *rig.keys.authority(DEVICE_CA), system_clock)
    serials = [f"ZA35-8000{node.number:02}" for node in rig.cluster.nodes]
    for serial in serials:
        claim, key = new_claim(), ec.generate_private_key(ec.SECP256R1())
        with registry.changing() as change:
            change.add(serial, claim, system_clock())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)])
        signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        request = base64.encodebytes(signed.public_bytes(Encoding.DER))
        certificate = enrolment.enrol(serial, claim, request).certificate
        rig.identity(serial, Issued(key, certificate))
    lists = rig.folder / "made-lists"
    lists.mkdir()
    with contextlib.ExitStack() as stack:
        boxes = [
            stack.enter_context(
                rig.listening(serial, f"{PREFIX}/{serial}/cmd", at=node, options=("-k", str(KEEPALIVE_S)))
            )
            for serial, node in zip(serials, rig.cluster.nodes, strict=True)
        ]
        for number, (serial, box) in enumerate(zip(serials, boxes, strict=True)):
            words = ("revoke", str(rig.keys.path), str(registry.path), serial, "--reason", "stolen")
            rig.ota(*words, "--crl-dir", str(lists), "--carry", str(rig.carrier()))
            ended = time.monotonic()
            box.wait("eceived DISCONNECT (142)")
            assert time.monotonic() - ended < KEEPALIVE_S
            for node in rig.cluster.nodes:
                assert "exit 0" not in rig.publish(serial, f"{PREFIX}/{serial}/evt", "still here", at=node)
            for other, listener in zip(serials[number + 1 :], boxes[number + 1 :], strict=True):
                assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{other}/cmd", f"number {number}")
                listener.wait(f"number {number}")
                assert "DISCONNECT (" not in listener.said()
        for box in boxes:
            assert box.said().count("received CONNACK (0)") == 1, box.said()  # it has tried again ever since


def test_a_retained_document_is_where_it_was_put(rig: Rig) -> None:
    """The reason for telling every node: RabbitMQ keeps what is retained on the node that was told."""
    here, there, _third = rig.cluster.nodes
    topic = f"{PREFIX}/{OTHER}/desired"
    body = hashlib.sha256(b"document").hexdigest()
    assert "exit 0" in rig.publish("publisher", topic, body, "-r", at=here)
    rig.listen(OTHER, topic, until=body, at=here)
    assert body not in rig.listen(OTHER, topic, linger_s=3, at=there)


def test_a_node_that_was_away_is_told_a_box_s_document_again(rig: Rig) -> None:
    keys_folder, topic = rig.keys.path, f"{PREFIX}/{OTHER}/desired"
    (rig.folder / "settings.json").write_text('{"policy": {"fail_closed": false}}')

    def publish() -> str:
        file = str(rig.folder / "settings.json")
        return rig.ota("desired", "publish", str(keys_folder), "--device", OTHER, "--file", file)

    def newest() -> str:
        return (keys_folder / f"desired/published/{OTHER}.cose").read_bytes().hex()

    def expect(node: Node) -> None:
        rig.listen(OTHER, topic, until=newest(), at=node, form="GOT %x")

    publish()
    for node in rig.cluster.nodes:
        expect(node)
    away = rig.cluster.nodes[2]
    away.kill()
    said = publish()
    assert away.address in said
    assert "omamori-ota desired resend" in said
    for node in rig.cluster.nodes[:2]:
        expect(node)
    away.start()
    rig.cluster.wait_whole(rig.cluster.nodes[0])
    assert newest() not in rig.listen(OTHER, topic, linger_s=3, at=away, form="GOT %x")
    assert rig.ota("desired", "resend", str(keys_folder)) == ""
    expect(away)
