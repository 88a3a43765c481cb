"""Measures the first chain: image, build, boot, agent, memory, traffic through the box, data plane natively.

Each figure is one sentence in the result (see `benchmark`). Nothing is compared here: budgets stand beside figures
for the reader.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omamori_protocol.durable import write_atomic

from . import bench_bulk, machine, products
from .addresses import NEW_DOMAIN, PC1, PC2, ROUTER_IPV4, WEB
from .benchmark import Benchmark, Figure, median, parse_benchmark, render
from .errors import LabError
from .lab import Lab
from .progress import Progress
from .run import run
from .settings import LabSettings
from .waiting import wait_for
from .web_content import BIG_BYTES, BIG_FILE

NAME = "first-chain"
_MIB = 1 << 20
_BUILD_TIMEOUT_S = 3600.0
_IDLE_S = 60.0
_DOWNLOADS = 3
_AGENT = "systemctl show -p MainPID --value omamori-agent.service"


def measure(settings: LabSettings, progress: Progress, *, boots: int, is_cold: bool, rounds: int) -> Benchmark:
    """Measure everything.

    Args:
        settings: Of the lab; the image measured for size is the release image.
        progress: Told what is being done.
        boots: How often the box is switched on.
        is_cold: Also build the image without any cache (downloads everything anew).
        rounds: How often the native data plane is measured.
    """
    figures: list[Figure] = []
    products.ensure_keys(settings.keys)
    progress.step("release image")
    release = settings.image.parent / "release"
    with progress.quiet():
        manifest = products.build_image(settings.keys, release, "release")
    figures += _image(release)
    figures += _builds(settings, progress, is_cold=is_cold)
    lab = Lab(settings, progress)
    with lab.running():
        figures += _boots(lab, progress, boots)
        figures += _agent(lab, progress)
        figures += _traffic(lab, progress)
        figures.append(_feed(lab, progress))
    progress.step("native data plane")
    wire = bench_bulk.measure(rounds=rounds, note=progress.moment)
    figures += _wire(wire)
    return Benchmark(
        name=NAME,
        title="The first chain",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions={"image": str(manifest["version"]), "kernel of the box": str(manifest["kernel"])},
        figures=tuple(figures),
        details={"native data plane": wire},
    )


def write(result: Benchmark, docs: Path) -> None:
    """Store a result and render the page from all that are there."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{result.name}.json", result.to_json())
    results = [parse_benchmark(path.read_bytes(), path.name) for path in sorted(folder.glob("*.json"))]
    write_atomic(docs / "benchmarks.md", render(results).encode())


def _image(image: Path) -> Iterator[Figure]:
    root, verity, kernel = (image / name for name in ("root.erofs", "root.verity", "omamori.efi"))
    slot = sum(path.stat().st_size for path in (root, verity, kernel))
    yield Figure(
        name="slot",
        value=round(slot / _MIB, 1),
        unit="MiB",
        explanation="One firmware slot of the release image as it lies on the disk: root file system, its verity tree"
        " and the signed kernel image, uncompressed so that deltas stay small.",
    )
    with tempfile.NamedTemporaryFile() as packed:
        run(["zstd", "-q", "-f", "-T0", "-10", root, "-o", packed.name], timeout_s=600)
        size = Path(packed.name).stat().st_size + kernel.stat().st_size + verity.stat().st_size
    yield Figure(
        name="slot, compressed",
        value=round(size / _MIB, 1),
        unit="MiB",
        explanation="The same with the root file system compressed by zstd -10: about what a full update transfers.",
        budget="≤ 160 MiB",
    )
    yield Figure(
        name="factory disk",
        value=round((image / "disk.raw").stat().st_blocks * 512 / _MIB, 1),
        unit="MiB",
        explanation="Bytes that the factory disk image really occupies; its holes are not stored.",
    )


def _builds(settings: LabSettings, progress: Progress, *, is_cold: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="omamori-bench-") as scratch:
        out = Path(scratch) / "image"
        if is_cold:
            progress.step("cold build")
            cache = {"OMAMORI_CACHE": str(Path(scratch) / "cache")}
            yield Figure(
                name="cold build",
                value=_build_s(settings, out, cache),
                unit="s",
                explanation="`omamori-image build` with an empty cache, downloads from the package mirror included.",
            )
        progress.step("warm build")
        warm = [_build_s(settings, out, {}) for _ in range(3)][1:]
        yield median(
            "warm build, nothing changed", warm, "s", "The same command again, when every stage is in the cache."
        )


def _build_s(settings: LabSettings, out: Path, env: dict[str, str]) -> float:
    command = [products.program("omamori-image"), "build", "--flavour", "release", "--json"]
    command += ["--trust", str(settings.keys / "trust"), "--out", str(out)]
    command += ["--secureboot-key", str(settings.keys / "secureboot" / "db.key")]
    begin = time.monotonic()
    run(command, timeout_s=_BUILD_TIMEOUT_S, env=env)
    return round(time.monotonic() - begin, 1)


def _boots(lab: Lab, progress: Progress, boots: int) -> Iterator[Figure]:
    reports = []
    for number in range(boots + 1):
        progress.step(f"boot {number + 1} of {boots + 1}")
        lab.box.cut_power()
        reports.append(lab.boot())
    first, *later = reports
    yield median(
        "power-on → forwarding",
        [report.forwarding_s for report in reports],
        "s",
        "From starting QEMU to the console line that the bridge forwards, firmware and Secure Boot included.",
        budget="≤ 10 s",
    )
    yield Figure(
        name="first power-on → protecting",
        value=round(first.protecting_s, 1),
        unit="s",
        explanation="The first start of a new box: key, enrolment, first feed, engine inspecting.",
        budget="≤ 60 s",
    )
    yield median(
        "power-on → protecting",
        [report.protecting_s for report in later],
        "s",
        "Every later start, after a power cut, with the feed it had.",
        budget="≤ 60 s",
    )


def _agent(lab: Lab, progress: Progress) -> Iterator[Figure]:
    progress.step("agent at rest")
    before = _agent_cpu_s(lab)
    begin = time.monotonic()
    time.sleep(_IDLE_S)  # the interval that is measured
    used, elapsed = _agent_cpu_s(lab) - before, time.monotonic() - begin
    rss_kib = int(_shell(lab, f"awk '/VmRSS/{{print $2}}' /proc/$({_AGENT})/status"))
    yield Figure(
        name="agent, resident memory",
        value=round(rss_kib / 1024, 1),
        unit="MiB",
        explanation="VmRSS of the agent in the box, connected, with the demonstration feed, a minute after start.",
        budget="≤ 48 MiB",
    )
    yield Figure(
        name="agent, processor at rest",
        value=round(100 * used / elapsed, 2),
        unit="%",
        explanation="Processor time of the agent during a quiet minute, in percent of one emulated core.",
    )
    memory = "awk '/MemTotal/{t=$2} /MemAvailable/{a=$2} END{print t-a}' /proc/meminfo"
    yield Figure(
        name="memory in use in the box",
        value=round(int(_shell(lab, memory)) / 1024, 1),
        unit="MiB",
        explanation="MemTotal minus MemAvailable of the guest, which has "
        f"{lab.settings.memory_mib} MiB, with the demonstration feed.",
        budget="≤ 1024 MiB",
    )


def _traffic(lab: Lab, progress: Progress) -> Iterator[Figure]:
    progress.step("downloads through the box")
    pc = lab.client(PC1.name)
    for name, scheme, why in (
        ("HTTP download, inspected", "http", "every byte is inspected, and the file's hash is checked"),
        ("HTTPS download, bypassed", "https", "after the handshake the gate forwards it past the engine"),
    ):
        rates = []
        for _ in range(_DOWNLOADS):
            got = pc.get(f"{scheme}://web.example/{BIG_FILE}", timeout_s=120, options=["-4"])
            if not got.complete:
                raise LabError(f"{name} failed: {got}")
            rates.append(BIG_BYTES * 8 / got.seconds / 1e6)
        yield median(name, rates, "Mbit/s", f"20 MB with curl through the emulated box: {why}.")


def _feed(lab: Lab, progress: Progress) -> Figure:
    progress.step("published → blocked")
    feeds, pc = lab.surroundings.feeds, lab.client(PC2.name)
    taken = []
    for number in range(3):
        domain = f"bench-{number}-{NEW_DOMAIN}"
        feeds.add_dangerous(domain)
        published = feeds.publish()

        def asked(name: str = domain) -> float | None:
            at_s = time.time()
            return at_s if pc.resolve(name, server=ROUTER_IPV4, timeout_s=1) is None else None

        blocked_s = wait_for(asked, f"{domain} blocked", timeout_s=60, every_s=0.05)
        taken.append(max(0.0, blocked_s - published.at_s))
        if pc.resolve("web.example", server=ROUTER_IPV4) != [WEB.ipv4]:
            raise LabError("an ordinary name is not answered any more")
    return median(
        "published → blocked",
        taken,
        "s",
        "From the moment the repository names a feed with one more domain to the first question for that domain that"
        " stays without an answer.",
        budget="≤ 5 s",
    )


def _wire(wire: dict[str, Any]) -> Iterator[Figure]:
    for direction in ("download", "upload", "download_4_streams"):
        values = {key: wire["figures"][f"{direction}_{key}"] for key in ("bridge_gbit_s", "omamori_gbit_s", "ratio")}
        yield Figure(
            name=f"native bulk, {direction.replace('_', ' ')}",
            value=values["ratio"],
            unit="× bare bridge",
            explanation=f"iperf3 in namespaces without emulation: {values['omamori_gbit_s']} Gbit/s with gate, queue"
            f" and engine against {values['bridge_gbit_s']} Gbit/s over a bare bridge in the same run.",
            budget="≥ 0.9" if direction == "download" else "",
        )
    yield Figure(
        name="engine, per bypassed gigabyte",
        value=wire["figures"]["download_engine_s_per_gb"],
        unit="s",
        explanation="Processor time the engine spends while a gigabyte passes, most of it past the engine.",
        budget="≤ 0.1 s",
    )


def _agent_cpu_s(lab: Lab) -> float:
    fields = _shell(lab, f"cat /proc/$({_AGENT})/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _shell(lab: Lab, command: str) -> str:
    result = lab.box.shell(command)
    if result.exit_code != 0:
        raise LabError(f"in the box: {command[:60]!r} failed: {result.output[-200:]}")
    return result.output.strip()
