"""What `omamori-agent status` tells, read from the files on disk only.

It opens the spool read-only and never asks the running daemon, so it works on a box whose agent is down, and on a
data partition mounted elsewhere.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3
from typing import Any

from cryptography import x509

from .config import Paths, load_provision, load_release, load_slot
from .desired.store import STATE_NAME
from .errors import AgentError
from .files import read_bounded
from .firmware.record import MAX_BYTES as MAX_RECORD_BYTES
from .firmware.record import parse_record
from .firmware.store import RECORD_NAME
from .identity.store import CERTIFICATE_NAME, KEY_NAME
from .spool import DATABASE_NAME

_MAX_CERTIFICATE_BYTES = 65536
_MAX_STATE_BYTES = 4096
_SERIAL = re.compile(r"[0-9]{1,10}")


def box_report(paths: Paths) -> dict[str, Any]:
    """Return everything there is to tell as plain values; what cannot be read is an ``error`` in its part."""
    parts = {
        "release": _release,
        "device": _device,
        "identity": _identity,
        "feed": _feed,
        "desired": _desired,
        "firmware": _firmware,
        "spool": _spool,
    }
    report: dict[str, Any] = {}
    for name, part in parts.items():
        try:
            report[name] = part(paths)
        except FileNotFoundError as err:
            report[name] = {"error": f"{err.filename}: missing"}
        except (AgentError, OSError, sqlite3.Error, ValueError, KeyError, TypeError) as err:
            report[name] = {"error": str(err)}
    return report


def render_report(report: dict[str, Any]) -> str:
    """Return the report for a person."""
    lines = []
    for name, part in report.items():
        lines.append(f"{name}:")
        lines += [f"  {key.replace('_', ' ')}: {'-' if value is None else value}" for key, value in part.items()]
    return "\n".join(lines)


def _release(paths: Paths) -> dict[str, Any]:
    release = load_release(paths.release)
    facts = {"version": release.version, "flavour": release.flavour, "board": release.board, "model": release.model}
    return facts | {"slot": load_slot(paths.slot).name}


def _device(paths: Paths) -> dict[str, Any]:
    provision = load_provision(paths.provision)
    return {
        "id": provision.serial,
        "broker": f"{provision.broker_host}:{provision.broker_port}",
        "repository": provision.repository_url,
        "enrolment": provision.enrolment_url,
        "channel": provision.channel,
    }


def _identity(paths: Paths) -> dict[str, Any]:
    has_key = (paths.identity / KEY_NAME).exists()
    certificate_path = paths.identity / CERTIFICATE_NAME
    if not certificate_path.exists():
        return {"enrolled": False, "key": has_key, "expires": None}
    leaf = x509.load_pem_x509_certificates(read_bounded(certificate_path, _MAX_CERTIFICATE_BYTES))[0]
    return {
        "enrolled": leaf.not_valid_after_utc > dt.datetime.now(dt.UTC),
        "key": has_key,
        "expires": leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _feed(paths: Paths) -> dict[str, Any]:
    target = paths.feed_current.readlink()
    serial = int(target.name) if _SERIAL.fullmatch(target.name) else 0
    return {"serial": serial, "directory": str(target)}


def _desired(paths: Paths) -> dict[str, Any]:
    body = json.loads(read_bounded(paths.desired / STATE_NAME, _MAX_STATE_BYTES))
    refused = body["refused"]
    return {"version": int(body["floor"]), "refused": None if refused is None else str(refused["reason"])}


def _firmware(paths: Paths) -> dict[str, Any]:
    record = parse_record(read_bounded(paths.firmware / RECORD_NAME, MAX_RECORD_BYTES))
    return {
        "version": record.version or None,
        "state": record.state.word,
        "reason": record.reason.word,
        "detail": record.detail or None,
        "trials": record.trials,
    }


def _spool(paths: Paths) -> dict[str, Any]:
    path = paths.spool / DATABASE_NAME
    path.stat()
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
    try:
        numbers = dict(database.execute("SELECT name, value FROM number"))
        query = "SELECT count(*), coalesce(sum(length(body)), 0) FROM event WHERE confirmed = 0"
        events, size_bytes = database.execute(query).fetchone()
    finally:
        database.close()
    lost = sum(value for name, value in numbers.items() if name.startswith("lost"))
    return {"boot": numbers.get("boot"), "events": events, "bytes": size_bytes, "lost": lost}
