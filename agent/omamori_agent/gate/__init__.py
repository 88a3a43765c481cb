"""The gate's pinned maps, as the agent sees them: terminals, what was blocked, the block list, exemptions, counters.

The maps belong to the gate (`firmware/gate/omamori_gate.h`); this package reads and writes them with the bpf(2)
system call and needs neither a library nor a privilege beyond the pins' file permissions. It never loads a program
and never changes the gate's configuration.
"""

from omamori_agent.gate.errors import (
    BadPrefixError,
    BlockListFullError,
    ExemptionsFullError,
    GateUnavailableError,
    PrefixTooWideError,
)
from omamori_agent.gate.gate import Gate
from omamori_agent.gate.layout import Counter, ExemptKind, Uninspected
from omamori_agent.gate.values import (
    BlockedFlow,
    BypassedFlow,
    Control,
    Count,
    ExemptAddress,
    ExemptMac,
    GateConfig,
    Network,
    Station,
    Terminal,
)
from omamori_agent.gate.wire import unset_bridge_settings

__all__ = [
    "BadPrefixError",
    "BlockListFullError",
    "BlockedFlow",
    "BypassedFlow",
    "Control",
    "Count",
    "Counter",
    "ExemptAddress",
    "ExemptKind",
    "ExemptMac",
    "ExemptionsFullError",
    "Gate",
    "GateConfig",
    "GateUnavailableError",
    "Network",
    "PrefixTooWideError",
    "Station",
    "Terminal",
    "Uninspected",
    "unset_bridge_settings",
]
