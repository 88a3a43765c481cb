"""The scenes: what must happen in an office behind the box. Each is a class with a name, a title and `play`."""

from __future__ import annotations

from collections.abc import Sequence

from omamori_lab.errors import SetupError

from .addresses_blocked import BlockListScene
from .attacks import BeaconScene, IntrusionScene
from .bypass import BypassScene
from .engine_faults import EngineHangScene, EngineMemoryScene
from .failures import FailuresScene
from .feeds import FeedRefusedScene, FeedUpdateScene
from .firmware import FirmwareScene
from .policy import AddressScene, ExemptionsScene, FailClosedScene
from .power import PowerCutScene
from .rings import FeedRingsScene
from .scene import Scene, Title, play
from .sites import CategoryScene, DangerousSiteScene
from .transparency import TransparentScene
from .viruses import VirusScene
from .wifi import WifiScene
from .wire_faults import WireFaultsScene

SCENES: tuple[Scene, ...] = (
    TransparentScene(),
    VirusScene(),
    DangerousSiteScene(),
    BlockListScene(),
    IntrusionScene(),
    BeaconScene(),
    CategoryScene(),
    FeedUpdateScene(),
    FeedRefusedScene(),
    FeedRingsScene(),
    WifiScene(),
    # Ends of the engine stand apart: several within a minute would cost the feed its place.
    FailuresScene(),
    BypassScene(),
    EngineHangScene(),
    ExemptionsScene(),
    AddressScene(),
    EngineMemoryScene(),
    WireFaultsScene(),
    FailClosedScene(),
    FirmwareScene(),
    PowerCutScene(),
)

__all__ = ["SCENES", "Scene", "Title", "choose", "play"]


def choose(names: Sequence[str]) -> tuple[Scene, ...]:
    """Return the scenes with these names, in their own order; all for no names.

    Raises:
        SetupError: There is no such scene.
    """
    known = {scene.name for scene in SCENES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SetupError(f"no such scene: {', '.join(unknown)}", hint="see: omamori-lab list")
    return tuple(scene for scene in SCENES if not names or scene.name in names)
