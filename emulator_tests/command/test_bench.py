"""`bench`: what its JSON has, whom it compares with, and what it does not take."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from mh_abi import abi
from mh_bench import native

KINDS = {"openssl", "libgcrypt", "ipsec-mb", "cryptography"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_bench.rounds.ROUNDS", 3)
    monkeypatch.setattr("mh_bench.speed.RUNS", 1)
    monkeypatch.setattr("mh_bench.speed.PAGES", 64)


def test_figures_of_a_run(command: Command, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library", encoding="utf-8")
    outcome = command("bench", "--json", "--peer", f"libgcrypt={text}")
    found = json.loads(outcome.out)
    assert (outcome.code, found["schema"]) == (0, "sev-migration-helper/bench/1")
    assert found["packet_bytes"] == 4096
    assert bool(found["cpu"]) is (platform.machine() == "x86_64")
    kernels = [kernel for kernel in native.NEEDS if not native.missing(kernel)]
    directions = [(kernel, direction) for kernel in kernels for direction in ("export", "import")]
    assert [(item["kernel"], item["direction"]) for item in found["kernels"]] == directions
    for item in found["kernels"]:
        assert 0 < item["cycles_min"] <= item["cycles_median"] <= item["cycles_max"]
        assert item["cycles_per_byte"] == item["cycles_median"]
        assert item["port_limit"] > 0
        assert all(ratio["low"] <= ratio["middle"] <= ratio["high"] for ratio in item["ratios"].values())
    assert {peer["name"] for peer in found["peers"]} == KINDS
    for peer in found["peers"]:
        assert (
            (peer["gbps"] is None) == (not peer["version"]) == (bool(peer["note"]) and peer["name"] != "cryptography")
        )
    assert any("file too short" in peer["note"] for peer in found["peers"])


def test_scale(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mh_bench.scale.CHECKED", ((5, 2),))
    outcome = command("bench", "--scale", "--json", "--html", str(tmp_path / "scale.html"))
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert found["schema"] == "sev-migration-helper/bench-scale/1"
    (check,) = found["checks"]
    assert check["counted"]["wire_bytes"] == check["model"]["wire_bytes"] == 5 * 4096 + 3 * len(abi.mh_packet)
    assert check["error"] < 0.01
    chunks = [chunk["exported"] for chunk in found["chunks"]]
    assert chunks == sorted(chunks, reverse=True)
    by_rings = {point["guest"]["rings"]: point for point in found["curve"] if point["guest"]["ram_bytes"] == 4 << 40}
    assert by_rings[64]["seconds"] == pytest.approx(by_rings[1]["seconds"] / 64)
    assert by_rings[1]["submissions"] == 2 * (1 << 30) // abi.MH_RING_SLOTS
    assert by_rings[64]["helper_bytes"] > by_rings[1]["helper_bytes"]
    page = (tmp_path / "scale.html").read_text(encoding="utf-8")
    assert page.count("<polyline") == 6
    assert page.count("<circle") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--packet", "8"), "--packet 8: not in 16 to 4096"),
        (("--packet", "1M"), "--packet 1048576: not in 16 to 4096"),
        (("--html", "page.html"), "--html is of --scale"),
        (("--peer", "openssl=nothing.so"), "--peer nothing.so: no such file"),
        (("--peer", "boringssl=/bin/true"), "'boringssl=/bin/true' is not one of openssl, libgcrypt, ipsec-mb and a"),
    ],
)
def test_what_it_does_not_take(command: Command, arguments: tuple[str, ...], said: str) -> None:
    outcome = command("bench", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
