"""The broker's plugin compiled as an operator does it, and asked in moments that a cluster rarely shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_cloud.broker_cluster import MODULES, rules_source
from omamori_firmware import enter
from omamori_lab.cluster import broker_tree
from omamori_lab.run import run

pytestmark = [pytest.mark.root, pytest.mark.long]

CHECK = Path(__file__).with_name("cluster_plugin.escript")


def test_doors_and_leftovers(tmp_path: Path) -> None:
    tree = broker_tree().top
    plugins = next((tree / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/plugins"))
    check = tmp_path / CHECK.name
    check.write_bytes(CHECK.read_bytes())
    sources = [tmp_path / f"{module}.erl" for module in MODULES]
    for module, source in zip(MODULES, sources, strict=True):
        source.write_text(rules_source(module))
    run(
        enter.command(tree, "tools", [tmp_path], ["erlc", "-Werror", "-o", tmp_path, *sources]),
        timeout_s=120,
        env={"ERL_LIBS": f"/{plugins.relative_to(tree)}"},
    )
    done = run(enter.command(tree, "tools", [tmp_path], ["escript", check, tmp_path]), timeout_s=120)
    assert done.output.endswith("all as it should be\n"), done.output
