"""`boot`: run firmware from the reset vector, or a Linux kernel, on the emulated machine; migrate it while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import MIRROR_STARTS, Start
from mh_cli import boot_firmware, boot_kernel, boot_snapshot, options
from mh_cli.errors import UsageError

_LEAST, _MOST = 128 * MIB, 2 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--fd", type=Path, metavar="IMAGE", help="flash image of OVMF")
    parser.add_argument(
        "--kernel", type=Path, metavar="VMLINUZ", help="Linux kernel for x86-64; with --fd the firmware loads it"
    )
    parser.add_argument(
        "--vars", type=Path, metavar="FILE",
        help="its variables, for --start es (default: what the image begins with, or lies beside it as OVMF_VARS*.fd)",
    )  # fmt: skip
    parser.add_argument("--migrate", action="store_true", help="migrate it, by the helper beside it")
    parser.add_argument(
        "--scheme",
        choices=list(SCHEMES),
        metavar="SCHEME",
        help="inject a helper of that scheme first; a kernel alone gets it beside it (default of a kernel: regions)",
    )
    parser.add_argument(
        "--memory", type=options.size, default=256 * MIB, metavar="BYTES", help="RAM of the guest (default 256M)"
    )
    parser.add_argument(
        "--start", choices=[start.value for start in MIRROR_STARTS], default=Start.HOST.value,
        help="plain SEV, without variables, or SEV-ES (default host)",
    )  # fmt: skip
    boot_snapshot.add_option(parser)
    boot_kernel.add_options(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot; bad where the guest does not come to its end, or its migration is not good."""
    if not _LEAST <= arguments.memory <= _MOST or arguments.memory % PAGE_BYTES:
        raise UsageError(f"--memory {arguments.memory:#x}: not in {_LEAST:#x} to {_MOST:#x}, or not made of pages")
    if arguments.kernel is not None:
        return boot_kernel.run(arguments)
    if arguments.fd is None:
        raise UsageError("one of --fd and --kernel is needed, or both")
    boot_kernel.refuse_options(arguments)
    return boot_firmware.run(arguments)
