import http.server
import json
import threading
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from omamori_lab.addresses import PC1, PC2
from omamori_lab.errors import LabError, NotReadyError
from omamori_lab.portal import Expected, Portal, brief, identity

WANTED = Expected(function="virus", direction="in", terminal=PC1, severity=2)


def alert(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "device": "ZA35-000001",
        "boot": 1,
        "seq": 1,
        "severity": 2,
        "count": 1,
        "function": "virus",
        "direction": "in",
        "action": "blocked",
        "terminal": {"ip": PC1.ipv4, "mac": PC1.mac},
        "destination": "http://web.example/eicar.com",
        "remote": {"ip": "198.51.100.10", "port": 80},
        "rule": {"id": 1, "text": "EICAR"},
        "category": None,
        **changes,
    }


class FakePortal(http.server.BaseHTTPRequestHandler):
    """Serves the shape of the page's JSON from memory, two alerts a page."""

    alerts: ClassVar[list[dict[str, Any]]] = []
    boxes: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        start = int(parse_qs(parts.query).get("before", ["0"])[0])
        if parts.path == "/api/v1/boxes":
            body: Any = {"boxes": self.boxes}
        elif parts.path == "/api/v1/alerts":
            more = start + 2 < len(self.alerts)
            body = {"alerts": self.alerts[start : start + 2], "next": str(start + 2) if more else None}
        else:
            self.send_error(404)
            return
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def portal():
    handler = type("Handler", (FakePortal,), {"alerts": [], "boxes": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made = Portal(server.server_address[1])
    made.handler = handler  # type: ignore[attr-defined]
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_expected_alert_fits() -> None:
    assert WANTED.fits(alert())


@pytest.mark.parametrize(
    "changes",
    [
        {"function": "ips"},
        {"direction": "out"},
        {"severity": 3},
        {"action": "logged"},
        {"terminal": {"ip": PC1.ipv4, "mac": PC2.mac}},
        {"terminal": {"ip": PC1.ipv4, "mac": None}},
        {"terminal": {"ip": PC2.ipv4, "mac": PC1.mac}},
    ],
    ids=str,
)
def test_any_difference_does_not_fit(changes: dict[str, Any]) -> None:
    assert not WANTED.fits(alert(**changes))


def test_the_terminal_may_be_told_by_its_ipv6_address() -> None:
    assert WANTED.fits(alert(terminal={"ip": PC1.ipv6, "mac": PC1.mac.upper()}))


def test_an_alert_in_few_words() -> None:
    assert brief(alert()) == f"virus in ★★ blocked {PC1.ipv4} {PC1.mac} → http://web.example/eicar.com EICAR"


def test_all_pages_are_read(portal) -> None:
    portal.handler.alerts = [alert(seq=number) for number in range(5)]
    assert [identity(item)[2] for item in portal.alerts()] == [0, 1, 2, 3, 4]


def test_an_alert_from_before_the_scene_does_not_count(portal) -> None:
    portal.handler.alerts = [alert()]
    missing, fresh = portal.await_alerts([WANTED], known={identity(alert())}, timeout_s=0.2)
    assert (missing, fresh) == ([WANTED], [])


def test_a_new_alert_is_found(portal) -> None:
    portal.handler.alerts = [alert(seq=2)]
    missing, fresh = portal.await_alerts([WANTED], known=set(), timeout_s=5)
    assert (missing, len(fresh)) == ([], 1)


def test_a_box_that_does_not_come(portal) -> None:
    portal.handler.boxes = [{"device": "ZA35-000001", "online": False}]
    with pytest.raises(NotReadyError, match="'online': False"):
        portal.await_box("ZA35-000001", lambda box: bool(box["online"]), timeout_s=0.2)


def test_an_unknown_box(portal) -> None:
    with pytest.raises(LabError, match="does not know ZA35-000009"):
        portal.box("ZA35-000009")


def test_a_page_that_does_not_answer() -> None:
    portal = Portal(1)
    assert not portal.healthy()
    with pytest.raises(LabError, match="/api/v1/boxes"):
        portal.boxes()
