"""Recipes: the package lists and overlays an image is made from, as data under `firmware/recipe`.

This module finds and parses them; it builds nothing.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware.errors import SetupError


@dataclass(frozen=True)
class PackageList:
    """Debian packages of one tree.

    Attributes:
        name: `root` or `tools`.
        suite: Debian release.
        packages: Wanted packages; dependencies follow, recommendations do not.
        from_backports: Packages that come from backports.
        path_exclude: Patterns of files that are never unpacked.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    from_backports: tuple[str, ...]
    path_exclude: tuple[str, ...]


@dataclass(frozen=True)
class SourceTree:
    """Where the parts of this repository lie that an image is made from."""

    top: Path

    @property
    def recipe(self) -> Path:
        """Package lists, locks, overlays and the initrd's files."""
        return self.top / "firmware" / "recipe"

    @property
    def boards(self) -> Path:
        """Board descriptions."""
        return self.top / "hw" / "boards"

    @property
    def device_packages(self) -> tuple[Path, ...]:
        """The Python packages of ours that the image carries, exactly these."""
        names = ("protocol/omamori_protocol", "hw/omamori_hw", "agent/omamori_agent")
        return tuple(self.top / name for name in names)

    @property
    def device_lock(self) -> Path:
        """Locked Python wheels of the device."""
        return self.top / "requirements" / "device.lock"

    @property
    def units(self) -> Path:
        """Units of the agent."""
        return self.top / "agent" / "units"

    @property
    def wire(self) -> Path:
        """The data plane's forwarding part."""
        return self.top / "firmware" / "wire"

    @property
    def engine(self) -> Path:
        """The data plane's engine configuration."""
        return self.top / "firmware" / "engine"

    @property
    def wifi(self) -> Path:
        """The access point's units."""
        return self.top / "firmware" / "wifi"

    @property
    def slots(self) -> Path:
        """Source of the boot chooser."""
        return self.top / "firmware" / "slots"

    @property
    def gate(self) -> Path:
        """Source of the gate."""
        return self.top / "firmware" / "gate"

    def lock(self, name: str) -> Path:
        """Return the lock file of a package list."""
        return self.recipe / f"{name}.lock"

    def package_list(self, name: str) -> PackageList:
        """Read a package list.

        Raises:
            SetupError: It is absent or malformed.
        """
        path = self.recipe / f"{name}.toml"
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            suite = values.pop("suite")
            lists = {key: tuple(values.pop(key)) for key in ("packages", "from_backports", "path_exclude")}
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as err:
            raise SetupError(f"{path} is not a package list ({err})") from err
        if values or not isinstance(suite, str) or any(type(item) is not str for row in lists.values() for item in row):
            raise SetupError(f"{path} is not a package list (unknown key or wrong type)")
        return PackageList(name=name, suite=suite, **lists)


def source_tree() -> SourceTree:
    """Return this repository, found from where this package lies."""
    return SourceTree(Path(__file__).resolve().parents[2])
