"""The name under which micropython-senml looks for a CBOR encoder; it gets the link's strict one."""

from supervisor.cbor import CborError as CBORDecodeError
from supervisor.cbor import dumps, loads

__all__ = ["CBORDecodeError", "dumps", "loads"]
