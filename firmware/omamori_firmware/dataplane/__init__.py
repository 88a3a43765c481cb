"""The data plane: what stands between the office and the internet, described once and installed in two places.

`plan` says what is wanted; `box` writes it as files of the image, `native` installs it in a network namespace of
this machine; `build` compiles the gate and its loader; `engine` adapts the engine's configuration to another place.
"""

from omamori_firmware.dataplane.build import build_gate
from omamori_firmware.dataplane.plan import PLAN, WirePlan

__all__ = ["PLAN", "WirePlan", "build_gate"]
