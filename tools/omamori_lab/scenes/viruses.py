"""A known malicious file, downloaded over HTTP."""

from __future__ import annotations

import hashlib

from omamori_lab.addresses import PC1, PC2
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist
from omamori_lab.web_content import EICAR_FILE, eicar

from .scene import BLOCKED_TIMEOUT_S, Title, check_alerts, together


class VirusScene:
    """Two PCs download the EICAR test file, from an ordinary and an unusual port."""

    name = "virus"
    title = Title("ウイルスのダウンロードを止める", "a virus download is stopped")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Download, and look at what arrived and what the portal says."""
        known = lab.known_alerts()
        harmful = hashlib.sha256(eicar()).hexdigest()
        attempts = {"port 80": (PC1, "http://web.example"), "port 8081": (PC2, "http://web.example:8081")}
        got = together(
            *(
                lambda pc=pc, url=url: lab.client(pc.name).get(f"{url}/{EICAR_FILE}", timeout_s=BLOCKED_TIMEOUT_S)
                for pc, url in attempts.values()
            )
        )
        for name, download in zip(attempts, got, strict=True):
            stopped = not download.complete and download.sha256 != harmful
            checks.add(f"EICAR, {name}", expected="does not arrive", seen=download, ok=stopped)
        wanted = [Expected(function="virus", direction="in", terminal=pc, severity=2) for pc in (PC1, PC2)]
        check_alerts(lab, checks, wanted, known=known)
