"""One step of a box's identity worker as a program of its own, its key in a TPM: facts in JSON in, facts out.

It runs where the agent's Python and OpenSSL are the image's, with nothing of the tests but this file.
"""

from __future__ import annotations

import json
import logging
import resource
import ssl
import sys
from pathlib import Path

from omamori_agent.config import EnrolmentLimits
from omamori_agent.identity import TPM, EnrolmentClient, IdentityHolder, IdentityStore, IdentityWorker
from omamori_protocol.provision import parse_provision


class StandingClock:
    """Shows the time that the test wants."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s

    def now(self) -> float:
        return self._now_s

    def monotonic(self) -> float:
        return 0.0


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    facts = json.loads(sys.argv[1])
    provision = parse_provision(Path(facts["provision"]).read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    holder, lines = IdentityHolder(), []
    limits = EnrolmentLimits()
    worker = IdentityWorker(
        device=provision.serial,
        store=IdentityStore(Path(facts["identity"]), provision.serial, provision.claim, TPM(facts["tcti"])),
        enroller=EnrolmentClient(provision, facts["service_ca"], limits),
        holder=holder,
        limits=limits,
        clock=StandingClock(facts["now_s"]),
        report=lines.append,
    )
    wait_s = worker.step()
    identity = holder.get()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    told = {"lines": lines, "wait_s": wait_s, "grown_kib": grown, "openssl": ssl.OPENSSL_VERSION, "python": sys.version}
    print(json.dumps(told | {"expires_s": identity.expires_s if identity else None}))


if __name__ == "__main__":
    main()
