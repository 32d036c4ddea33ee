"""`migrate`: move a guest with given RAM contents between two emulated platforms, and check everything."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS, Part
from mh_builder.schemes.space import LayoutError, Start
from mh_cli import options
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from mh_emulator.guest.contents import Contents
    from mh_emulator.host.migration import Report

MAX_CONTENTS = 4 << 30
"""RAM contents that the emulator takes; a part of both guests is held in memory, the rest in a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    options.add_started_scheme(parser)
    parser.add_argument("--ram", type=Path, required=True, metavar="FILE", help="any file: the guest's RAM contents")
    options.add_layout(parser)
    options.add_helper_vcpus(parser)
    options.add_part(parser)
    parser.add_argument(
        "--context",
        action="store_true",
        help="--start snp: what the secure processor knows of the guest moves too, with a KVM that nobody has written",
    )
    parser.add_argument(
        "--gdb",
        type=options.port,
        metavar="PORT",
        help="wait for gdb on that port of 127.0.0.1 (0: any), and run the source's helper under it",
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Migrate under the chosen schemes; one report each."""
    from mh_cli.table import print_reports
    from mh_emulator.guest.contents import FileContents
    from mh_emulator.host.placement import place

    owner = _owner(arguments)
    chosen = options.layout(arguments, b"" if owner is None else owner.public_key().public_bytes_raw())
    size = _ram_size(arguments.ram)
    images = {scheme: build_helper(scheme, chosen) for scheme in options.started_schemes(arguments)}
    for image in images.values():
        place(size, hosted(image, PARTS[arguments.part].c_bit))
        _check_reach(image, PARTS[arguments.part])
    if size > MAX_CONTENTS:
        raise UsageError(f"RAM file {arguments.ram} has {size:#x} bytes, the emulator takes {MAX_CONTENTS:#x}")
    with FileContents(arguments.ram) as contents:
        reports = _reports(arguments, images, contents, owner)
    if arguments.json:
        shown = [report.as_json() for report in reports]
        if arguments.scheme:
            print_json("migration/1", shown[0])
        else:
            print_json("migrations/1", {"migrations": shown})
    else:
        print_reports(reports)
    return GOOD if all(report.good for report in reports) else BAD


def _reports(
    arguments: argparse.Namespace, images: dict[str, Image], contents: Contents, owner: X25519PrivateKey | None
) -> list[Report]:
    part = PARTS[arguments.part]
    if arguments.gdb is not None:
        return [_debugged(arguments, images, contents)]
    reports = []
    for scheme, image in images.items():
        if owner is None:
            reports.append(migrate(scheme, image, part, contents))
        else:
            reports.append(_migrate_snp(arguments, image, contents, owner))
        # The parts of a machine refer to each other: its memory would stay until Python happens to look.
        gc.collect()
    return reports


def migrate(scheme: str, image: Image, part: Part, contents: Contents) -> Report:
    """One migration of a guest with these RAM contents, by the helper in `image`."""
    from mh_emulator.host.migration import Scenario
    from mh_emulator.host.migration import run as run_migration

    return run_migration(Scenario(scheme, part, hosted(image, part.c_bit), image.table_bytes, contents))


def _owner(arguments: argparse.Namespace) -> X25519PrivateKey | None:
    """Who owns an SNP guest; a mirror's helper has its record by LAUNCH_SECRET."""
    if arguments.start != Start.SNP.value:
        if arguments.context:
            raise UsageError(f"--context: only --start snp has a context that moves, found --start {arguments.start}")
        return None
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from mh_emulator.psp.snp.tcb import TCB_LAYOUTS

    if arguments.part not in TCB_LAYOUTS:
        raise UsageError(f"--start snp: {arguments.part} has no SEV-SNP, {', '.join(sorted(TCB_LAYOUTS))} have")
    return X25519PrivateKey.generate()


def _migrate_snp(arguments: argparse.Namespace, image: Image, contents: Contents, owner: X25519PrivateKey) -> Report:
    """One migration of an SNP guest with these RAM contents, by the helper in `image`."""
    from mh_emulator.host.migration import Scenario
    from mh_emulator.host.snp_context import ImageMachine
    from mh_emulator.host.snp_machine import SnpMachine
    from mh_emulator.host.snp_migration import run as run_migration

    part = PARTS[arguments.part]
    scenario = Scenario(image.space.name, part, hosted(image, part.c_bit), image.table_bytes, contents)
    return run_migration(scenario, owner, ImageMachine if arguments.context else SnpMachine)


def _debugged(arguments: argparse.Namespace, images: dict[str, Image], contents: Contents) -> Report:
    """The migration under one scheme, its source under gdb."""
    from mh_emulator.gdb.server import HOST, attached, source_under
    from mh_emulator.host.migration import Scenario
    from mh_emulator.host.migration import run as run_migration

    part = PARTS[arguments.part]
    if len(images) > 1 or arguments.helper_vcpus > 1 or arguments.start != Start.HOST.value:
        raise UsageError(
            "--gdb needs one --scheme, one vCPU and --start host: under SEV-ES and SNP no host sees registers"
        )
    ((scheme, image),) = images.items()

    def waits(port: int) -> None:
        print(f"waiting for gdb: target remote {HOST}:{port}", file=sys.stderr, flush=True)

    with attached(arguments.gdb, waits) as debugger:
        scenario = Scenario(
            scheme, part, hosted(image, part.c_bit), image.table_bytes, contents, source_under(debugger)
        )
        report = run_migration(scenario)
        debugger.end(GOOD if report.good else BAD)
    return report


def _check_reach(image: Image, part: Part) -> None:
    for what, region in (("helper", image.space.helper), ("RAM", image.space.ram)):
        if region.end > 1 << part.physical_bits:
            raise LayoutError(
                f"{image.space.name}: region {what} {region} exceeds the {part.physical_bits} physical address bits "
                f"of {part.name}, {1 << part.physical_bits:#x}"
            )


def _ram_size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"RAM file {path}: {error.strerror}") from error
    if not path.is_file():
        raise UsageError(f"RAM file {path} is no regular file")
    if not size:
        raise UsageError(f"RAM file {path} is empty: 0x0 bytes, at least 0x1 needed")
    return size
