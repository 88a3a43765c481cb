"""SenML (RFC 8428) as the supervisor sends it, resolved to plain records.

Read with our own strict decoder and these few lines: the encoder's package also has a decoder, which loses units and
times.
"""

from dataclasses import dataclass

from omamori_hw.errors import BadMessageError
from omamori_hw.supervisor.messages import loads

_BASE_NAME, _BASE_UNIT, _BASE_VALUE = -2, -4, -5
_NAME, _UNIT, _VALUE, _TRUTH = 0, 1, 2, 4
_KNOWN = {_BASE_NAME: str, _BASE_UNIT: str, _BASE_VALUE: int, _NAME: str, _UNIT: str, _VALUE: int, _TRUTH: bool}


@dataclass(frozen=True)
class Measurement:
    """One value with its unit, as RFC 8428 and RFC 8798 name it; an empty unit for a truth."""

    name: str
    unit: str
    value: int | bool


def resolve(pack: bytes) -> dict[str, Measurement]:
    """Return the measurements of a pack by their names, without the base name.

    Raises:
        BadMessageError: It is not a pack, or a record has labels, types or values that the supervisor does not use.
    """
    records = loads(pack)
    if not isinstance(records, list):
        raise BadMessageError("not a SenML pack")
    base: dict[int, object] = {}
    found: dict[str, Measurement] = {}
    for record in records:
        if not isinstance(record, dict) or any(type(value) is not _KNOWN.get(key) for key, value in record.items()):
            raise BadMessageError("a SenML record with a label or type that is not used here")
        base |= {key: value for key, value in record.items() if key < 0}
        name = str(record.get(_NAME, ""))
        if not name or name in found or (_VALUE in record) == (_TRUTH in record):
            raise BadMessageError("a SenML record without name or without exactly one value")
        unit = str(record.get(_UNIT, base.get(_BASE_UNIT, "")))
        if _TRUTH in record:
            found[name] = Measurement(name, unit, bool(record[_TRUTH]))
        else:
            offset = base.get(_BASE_VALUE, 0)
            assert isinstance(offset, int)
            found[name] = Measurement(name, unit, record[_VALUE] + offset)
    return found
