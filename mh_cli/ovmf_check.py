"""`ovmf check`: whether a firmware image may be given to the owner of a guest, one question a line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mh_builder.firmware.check import Row, Subject, check, unreadable
from mh_builder.firmware.digests import Launch, Mode
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import FlashLaunch, Vcpus
from mh_builder.helper import build_helper
from mh_builder.igvm.launch import IgvmLaunch
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from mh_cli import options
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import Firmware, read_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.epilog = "A row with a star decides: the exit code is 1 where one of them is a no."
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image of OVMF, or an IGVM file")
    names = [mode.value for mode in Mode]
    parser.add_argument("--mode", choices=names, help="kind of guest that it has to be launchable as (default: any)")
    parser.add_argument("--scheme", choices=list(SCHEMES), metavar="SCHEME", help="of a helper that has to fit")
    options.add_layout(parser)
    options.add_helper_vcpus(parser, "--helper-vcpus")
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask everything, print the table; bad where a row that decides is a no."""
    rows = _rows(arguments)
    refused = [row.question for row in rows if row.refuses]
    if arguments.json:
        shown = [
            {"question": row.question, "answer": row.answer.value, "reason": row.reason, "decides": row.decides}
            for row in rows
        ]
        print_json("ovmf-check/1", {"good": not refused, "rows": shown})
        return BAD if refused else GOOD
    for row in rows:
        print(f"{row.answer.value:11} {'*' if row.decides else ' '} {row.question:22} {row.reason}")
    print(f"{arguments.image}: {_verdict(rows, refused)}")
    return BAD if refused else GOOD


def _verdict(rows: Sequence[Row], refused: Sequence[str]) -> str:
    if refused:
        return f"no, because of: {', '.join(refused)}"
    return f"yes, none of the {sum(row.decides for row in rows)} questions that decide (*) is a no"


def _rows(arguments: argparse.Namespace) -> list[Row]:
    try:
        image = read_image(arguments.image)
        flash = image.flash
    except FirmwareError as error:
        return [unreadable(str(error).removeprefix(f"{arguments.image}: "))]
    kind = "flash image" if image.igvm is None else f"IGVM file, version {image.igvm.version}"
    layout = options.layout(arguments)
    helper = None if arguments.scheme is None else lambda: build_helper(arguments.scheme, layout).data
    mode = None if arguments.mode is None else Mode(arguments.mode)
    return check(Subject(kind, flash, lambda: _launch(image, arguments.part), image.carried, mode, helper))


def _launch(image: Firmware, part: str) -> Launch:
    if image.igvm is not None:
        return IgvmLaunch(image.igvm)
    return FlashLaunch(image.data, Vcpus(1, PARTS[part].signature))
