"""`bench`: how fast the kernels, the toolchain and the emulator are on this machine. Figures are never checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_builder.paging import PAGE_BYTES
from mh_cli import options
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json

if TYPE_CHECKING:
    from mh_bench import crypto

_LEAST_PACKET = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "--packet", type=options.size, default=PAGE_BYTES, metavar="BYTES",
        help=f"bytes of a packet of the kernels, {_LEAST_PACKET} to {PAGE_BYTES} (default {PAGE_BYTES})",
    )  # fmt: skip
    parser.add_argument(
        "--peer", type=_peer, action="append", default=[], metavar="KIND=FILE",
        help="another library to compare with: openssl, libgcrypt or ipsec-mb (its header is needed); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--scale", action="store_true", help="instead: a migration by RAM, rings, chunks and shared pages, by a model"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="with --scale: curves and tables as one page")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="read the page tables of this dump, and nothing else")
    parser.add_argument(
        "--volatility", type=Path, default=Path(sys.executable), metavar="PYTHON",
        help="an interpreter that has volatility3, to be measured beside (default: this one)",
    )  # fmt: skip
    options.add_json(parser)
    parser.set_defaults(run=run)


def _peer(text: str) -> tuple[str, Path]:
    from mh_bench.peers import SONAMES

    kind, _, path = text.partition("=")
    if kind not in SONAMES or not path:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of {', '.join(SONAMES)} and a file (openssl=libcrypto.so)"
        )
    return kind, Path(path)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Raises `UsageError`."""
    if arguments.dump is not None:
        return _walks(arguments)
    if arguments.html is not None and not arguments.scale:
        raise UsageError("--html is of --scale")
    if arguments.scale:
        from mh_cli import bench_scale

        return bench_scale.run(arguments)
    if not _LEAST_PACKET <= arguments.packet <= PAGE_BYTES:
        raise UsageError(f"--packet {arguments.packet}: not in {_LEAST_PACKET} to {PAGE_BYTES}")
    for _, path in arguments.peer:
        if not path.is_file():
            raise UsageError(f"--peer {path}: no such file")
    from mh_bench import crypto
    from mh_bench.peers import libraries
    from mh_bench.speed import measure

    report = crypto.measure(arguments.packet, libraries(arguments.peer))
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
        "kernels": [_plain_kernel(item) for item in report.kernels],
        "limits": [item._asdict() for item in report.limits],
        "peers": [item._asdict() for item in report.peers],
    }


def _plain_kernel(kernel: crypto.Kernel) -> dict[str, Any]:
    return kernel._asdict() | {"ratios": {name: spread._asdict() for name, spread in kernel.ratios.items()}}


def _print_kernels(report: crypto.Report) -> None:
    from rich.console import Console
    from rich.table import Table

    peers = list(dict.fromkeys(name for kernel in report.kernels for name in kernel.ratios))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "direction"):
        table.add_column(name, no_wrap=True)
    for name in ("GB/s", "cycles/byte", "min to max", "ports", "x limit", *(f"x {name}" for name in peers)):
        table.add_column(name, justify="right")
    for kernel in report.kernels:
        ratios = (kernel.ratios.get(name) for name in peers)
        table.add_row(
            *(kernel.kernel, kernel.direction, f"{kernel.gbps:.2f}", f"{kernel.cycles_median:.3f}"),
            *(f"{kernel.cycles_min:.3f} to {kernel.cycles_max:.3f}", f"{kernel.port_limit:.3f}"),
            f"{kernel.ratio_limit:.2f}",
            *("-" if ratio is None else f"{ratio.middle:.2f}" for ratio in ratios),
        )
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    print(f"packets of {report.packet_bytes} bytes with 64 of AAD; {report.cpu or 'no x86-64 CPU'}")
    print(f"harness: {report.harness}; core clock {report.clock_ghz:.2f} GHz")
    for limit in report.limits:
        parts = f"AES alone {limit.aes_gbps:.2f}, GHASH alone {limit.ghash_gbps:.2f}"
        print(
            f"limit of {limit.kernel}: {limit.gbps:.2f} GB/s ({parts}); of its ports {limit.port_limit:.3f} cycles/byte"
        )
    for peer in report.peers:
        speed = "" if peer.gbps is None else f"{peer.gbps:.2f} GB/s"
        print(" ".join(filter(None, (f"{peer.name} {peer.direction}:", speed, peer.version, peer.note))))
    for reason in report.absent:
        print(reason)
