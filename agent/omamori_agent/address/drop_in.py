"""Words an address for systemd-networkd: a drop-in of the management network. Values in, text out."""

from __future__ import annotations

from omamori_protocol.desired import AddressMode, AddressSettings

HEADER = "# Made by omamori-settings from the box's desired state; not by hand.\n"


def drop_in(settings: AddressSettings) -> str | None:
    """Return the drop-in's text, or None if the image's own settings (DHCP) are what is wanted.

    The values have passed the protocol's check, so that none of them can hold a line break or another key.
    """
    if settings.mode is AddressMode.DHCP:
        return None
    lines = ["[Network]", "DHCP=no", f"Address={settings.ipv4}", f"Gateway={settings.gateway}"]
    lines += [f"DNS={server}" for server in settings.dns]
    return HEADER + "\n".join(lines) + "\n"
