"""`bench`: how fast the kernels, the toolchain and the emulator are on this machine. Figures are never checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json

if TYPE_CHECKING:
    from mh_bench import crypto

_COLUMNS = ("kernel", "direction", "GB/s", "cycles/byte", "x openssl", "x libgcrypt", "x cryptography", "x limit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--dump", type=Path, metavar="FILE", help="read the page tables of this dump, and nothing else")
    parser.add_argument(
        "--volatility", type=Path, default=Path(sys.executable), metavar="PYTHON",
        help="an interpreter that has volatility3, to be measured beside (default: this one)",
    )  # fmt: skip
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.dump is not None:
        return _walks(arguments)
    from mh_bench import crypto
    from mh_bench.speed import measure

    report = crypto.measure()
    figures = measure()
    if arguments.json:
        print_json("bench/1", _plain(report) | {"figures": [figure._asdict() for figure in figures]})
        return GOOD
    _print_kernels(report)
    for figure in figures:
        print(f"{figure.name:44} {figure.value:12.2f} {figure.unit}")
    return GOOD


def _walks(arguments: argparse.Namespace) -> int:
    from mh_bench.walks import measure

    found = measure(arguments.dump, arguments.volatility)
    if arguments.json:
        print_json("bench-walks/1", {"walks": [walk._asdict() for walk in found.walks], "absent": found.absent})
        return GOOD
    for walk in found.walks:
        print(f"{walk.name:12} {walk.seconds:8.2f} s {walk.mib:8.1f} MiB")
    for reason in found.absent:
        print(reason)
    return GOOD


def _plain(report: crypto.Report) -> dict[str, Any]:
    return report._asdict() | {
        "kernels": [item._asdict() for item in report.kernels],
        "limits": [item._asdict() for item in report.limits],
        "peers": [item._asdict() for item in report.peers],
    }


def _print_kernels(report: crypto.Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for kernel in report.kernels:
        ratios = (kernel.ratio_openssl, kernel.ratio_libgcrypt, kernel.ratio_cryptography, kernel.ratio_limit)
        table.add_row(
            kernel.kernel,
            kernel.direction,
            f"{kernel.gbps:.2f}",
            f"{kernel.cycles_per_byte:.3f}",
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    print(f"4 KiB pages with 64 bytes of AAD; harness: {report.harness}; core clock {report.clock_ghz:.2f} GHz")
    for limit in report.limits:
        parts = f"AES alone {limit.aes_gbps:.2f}, GHASH alone {limit.ghash_gbps:.2f}"
        print(f"limit of {limit.kernel}: {limit.gbps:.2f} GB/s ({parts})")
    for peer in report.peers:
        speed = "" if peer.gbps is None else f"{peer.gbps:.2f} GB/s"
        print(" ".join(filter(None, (f"{peer.name} {peer.direction}:", speed, peer.version, peer.note))))
    for reason in report.absent:
        print(reason)
