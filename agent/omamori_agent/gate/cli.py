"""`omamori-gate`: what the gate of this box knows and does, for a person or (`--json`) a program. It only reads.

Every answer is bounded: at most `--limit` lines, the most telling first, and how many there are in all.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omamori_agent.errors import AgentError
from omamori_agent.gate.gate import DEFAULT_PIN_DIRECTORY, Gate
from omamori_agent.gate.values import BlockedFlow, BypassedFlow, Count, Station, Terminal

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 130
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 200_000
_PROTOCOLS = {1: "ICMP", 4: "IPv4 in IP", 6: "TCP", 17: "UDP", 41: "IPv6 in IP", 47: "GRE", 50: "ESP", 58: "ICMPv6"}
_DESCRIPTION = "What the gate of this box knows and does. It reads only; a setting is the cloud's or the button's."
_EPILOG = """\
examples:
  omamori-gate counters               packets and bytes since the gate was loaded, by what happened to them
  omamori-gate flows --limit 10       the ten largest flows that pass the engine by
  omamori-gate uninspected --json     what left uninspected, by reason
"""


@dataclasses.dataclass(frozen=True)
class _Table:
    """One answer: its lines for a person and its items for a program."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    items: Any
    total: int | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parsed = _parser().parse_args(argv)
    try:
        gate = Gate(parsed.pins)
        try:
            table = _COMMANDS[parsed.command][0](gate, parsed.limit)
        finally:
            gate.close()
        print(_as_json(table) if parsed.json else _as_text(table), flush=True)
    except AgentError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return _EXIT_ERROR
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_ERROR
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omamori-gate",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON (times in Unix seconds)")
    common.add_argument(
        "--limit", type=_limit, default=_DEFAULT_LIMIT, metavar="N", help=f"at most N lines ({_DEFAULT_LIMIT})"
    )
    common.add_argument(
        "--pins", type=Path, default=DEFAULT_PIN_DIRECTORY, metavar="DIR", help=f"pinned maps ({DEFAULT_PIN_DIRECTORY})"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in _COMMANDS.items():
        commands.add_parser(name, parents=[common], help=text, description=text[0].upper() + text[1:] + ".")
    return parser


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= _MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_MAX_LIMIT}")
    return number


def _terminals(gate: Gate, limit: int) -> _Table:
    ports = _Ports()
    every = gate.terminals()
    found = heapq.nlargest(limit, every, key=lambda one: one.last_seen)
    head = ("address", "MAC", "port", "seen", "sent", "received", "of that bypassed")

    def row(one: Terminal) -> tuple[str, ...]:
        bypassed = one.bypassed_tx_bytes + one.bypassed_rx_bytes
        amounts = (_amount(one.tx_bytes), _amount(one.rx_bytes), _amount(bypassed))
        return (str(one.address), one.mac, ports[one.ifindex], _ago(one.last_seen), *amounts)

    return _Table(head, [row(one) for one in found], [_plain(one, ports) for one in found], len(every))


def _stations(gate: Gate, limit: int) -> _Table:
    ports = _Ports()
    every = gate.stations()
    found = heapq.nlargest(limit, every, key=lambda one: one.last_seen)

    def row(one: Station) -> tuple[str, ...]:
        return (one.mac, str(one.vlan or "-"), ports[one.ifindex], _ago(one.last_seen))

    head = ("MAC", "VLAN", "port", "seen")
    return _Table(head, [row(one) for one in found], [_plain(one, ports) for one in found], len(every))


def _flows(gate: Gate, limit: int) -> _Table:
    epoch = gate.control().epoch
    seen = _Counted(flow for flow in gate.bypassed_flows() if flow.epoch == epoch)
    found = heapq.nlargest(limit, seen, key=lambda one: one.in_bytes + one.out_bytes)

    def row(one: BypassedFlow) -> tuple[str, ...]:
        ends = (_end(one.a, one.a_port), _end(one.b, one.b_port))
        amounts = (_amount(one.in_bytes), _amount(one.out_bytes))
        return (_protocol(one.proto), *ends, *amounts, _ago(one.last_seen), "tunnel" if one.is_tunnelled else "")

    head = ("protocol", "one end", "other end", "in", "out", "seen", "")
    return _Table(head, [row(one) for one in found], [_plain(one) for one in found], seen.count)


def _blocked(gate: Gate, limit: int) -> _Table:
    every = gate.blocked()
    found = heapq.nlargest(limit, every, key=lambda one: one.last_seen)

    def row(one: BlockedFlow) -> tuple[str, ...]:
        ends = (_end(one.src, one.sport), _end(one.dst, one.dport))
        where = (one.direction.name.lower(), one.mac or "-")
        return (_protocol(one.proto), *ends, *where, str(one.packets), _amount(one.bytes), _ago(one.last_seen))

    head = ("protocol", "from", "to", "direction", "terminal", "packets", "bytes", "seen")
    return _Table(head, [row(one) for one in found], [_plain(one) for one in found], len(every))


def _block_list(gate: Gate, limit: int) -> _Table:
    seen = _Counted(gate.block_list())
    found = list(itertools.islice(seen, limit))
    for _ in seen:  # only to know how many there are
        pass
    rows = [(str(prefix), str(list_id)) for prefix, list_id in found]
    items = [{"prefix": str(prefix), "list_id": list_id} for prefix, list_id in found]
    return _Table(("prefix", "list"), rows, items, seen.count)


def _counters(gate: Gate, _limit: int) -> _Table:
    return _counts({counter.name.lower(): one for counter, one in gate.counters().items()})


def _uninspected(gate: Gate, _limit: int) -> _Table:
    return _counts({reason.name.lower(): one for reason, one in gate.uninspected().items()})


def _control(gate: Gate, _limit: int) -> _Table:
    config, control = gate.config(), gate.control()
    ports = _Ports()
    until = {
        "passing everything by command until": control.bypass_until,
        "passing everything by button until": control.button_until,
        "passing the engine by (it hangs) until": control.hung_until,
        "passing the engine by (it is about to stop) until": control.paused_until,
    }
    rows = [(what, _clock(moment)) for what, moment in until.items()]
    rows += [
        ("uninspected IP is", "dropped (fail-closed)" if control.fail_closed else "passed (fail-open)"),
        ("epoch", str(control.epoch)),
        ("switched on", ", ".join(flag.name.lower() for flag in config.flags if flag.name) or "nothing"),
        ("one WAN and one LAN port", _pair(ports, config.wan_ifindex, config.lan_ifindex)),
        ("own MAC", config.own_mac),
    ]
    items = {
        **dataclasses.asdict(control),
        "flags": [flag.name for flag in config.flags],
        "wan_ifindex": config.wan_ifindex,
        "lan_ifindex": config.lan_ifindex,
        "own_mac": config.own_mac,
    }
    return _Table(("", ""), rows, items)


_COMMANDS: dict[str, tuple[Callable[[Gate, int], _Table], str]] = {
    "terminals": (_terminals, "devices behind the LAN ports, the latest first"),
    "stations": (_stations, "behind which port each MAC was seen, the latest first"),
    "flows": (_flows, "flows that the engine has finished with, the largest first"),
    "counters": (_counters, "packets and bytes since the gate was loaded, by what happened to them"),
    "blocked": (_blocked, "what the block list stopped and the agent has not fetched yet, the latest first"),
    "block-list": (_block_list, "the addresses that are blocked"),
    "uninspected": (_uninspected, "forwarded packets that nothing has inspected, by reason"),
    "control": (_control, "how the gate is set, and until when it lets pass"),
}


def _counts(counts: dict[str, Count]) -> _Table:
    rows = [(name, str(one.packets), str(one.bytes)) for name, one in counts.items()]
    return _Table(("", "packets", "bytes"), rows, {name: _plain(one) for name, one in counts.items()})


class _Counted(Iterator[Any]):
    """Counts what is taken from an iterable."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.count = 0

    def __next__(self) -> Any:
        item = next(self._items)
        self.count += 1
        return item


class _Ports:
    """Names of interfaces by number; the number itself where there is none (another namespace, or gone)."""

    def __getitem__(self, number: int) -> str:
        try:
            return socket.if_indextoname(number)
        except OSError:
            return str(number)


def _plain(value: Any, ports: _Ports | None = None) -> dict[str, Any]:
    """Return a value of the gate as JSON can hold it."""
    plain: dict[str, Any] = {}
    for name, member in dataclasses.asdict(value).items():
        is_plain = isinstance(member, (int, float, str, bool)) or member is None
        plain[name] = member.name.lower() if hasattr(member, "name") else member if is_plain else str(member)
    if ports is not None:
        plain["port"] = ports[value.ifindex]
    return plain


def _as_json(table: _Table) -> str:
    if table.total is None:
        return json.dumps(table.items, indent=2)
    return json.dumps({"total": table.total, "shown": len(table.rows), "items": table.items}, indent=2)


def _as_text(table: _Table) -> str:
    lines = [table.head, *table.rows] if any(table.head) else table.rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if table.total is not None and table.total != len(table.rows):
        text.append(f"({len(table.rows)} of {table.total}; --limit shows more)")
    elif table.total == 0:
        text = ["none"]
    return "\n".join(text)


def _protocol(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))


def _end(address: Any, port: int) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _amount(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    scaled, unit = float(size), ""
    for unit in ("kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the last one is used
        scaled /= 1000
        if scaled < 1000:
            break
    return f"{scaled:.1f} {unit}"


def _ago(moment: float) -> str:
    return f"{max(time.time() - moment, 0):.0f} s ago"


def _clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment)) if moment is not None else "no"


def _pair(ports: _Ports, wan: int, lan: int) -> str:
    return f"{ports[wan]}, {ports[lan]}" if wan and lan else "no: the receiver's port is looked up"


if __name__ == "__main__":
    sys.exit(main())
