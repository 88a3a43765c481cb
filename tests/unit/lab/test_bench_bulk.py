"""The bench's arithmetic and its reading of iperf3."""

from __future__ import annotations

import json

import pytest

from omamori_lab.bench_bulk import Sample, measure, parse_iperf3, summarise
from omamori_lab.errors import LabError


def test_summary_has_medians_ratio_spread_and_every_round() -> None:
    samples = {
        "download": {
            "bridge": [Sample(4.0, 0.0), Sample(5.0, 0.0), Sample(9.0, 0.0)],
            "omamori": [Sample(4.5, 0.03), Sample(2.0, 0.01), Sample(6.0, 0.02)],
        }
    }
    result = summarise(samples)
    assert result["figures"] == {
        "download_bridge_gbit_s": 5.0,
        "download_omamori_gbit_s": 4.5,
        "download_ratio": 0.9,
        "download_engine_s_per_gb": 0.02,
    }
    assert result["spread"]["download_omamori_gbit_s"] == [2.0, 6.0]
    assert [run["gbit_s"] for run in result["rounds"]["download"]["bridge"]] == [4.0, 5.0, 9.0]
    json.dumps(result)


def test_report_of_iperf3_is_read_from_the_receiver() -> None:
    report = {"end": {"sum_sent": {"bytes": 9}, "sum_received": {"bits_per_second": 8e9, "bytes": 10**9}}}
    assert parse_iperf3(json.dumps(report)) == (8e9, 10**9)


@pytest.mark.parametrize(
    "report",
    ["", "{", "[]", '{"error": "refused"}', '{"end": {"sum_received": {"bits_per_second": 0, "bytes": 0}}}'],
)
def test_failed_run_of_iperf3_is_an_error(report: str) -> None:
    with pytest.raises(LabError):
        parse_iperf3(report)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"seconds": 0}])
def test_bench_without_rounds_or_time_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(LabError):
        measure(**bad)
