"""The main job, which `build.py` without a verb does: build every scheme, migrate a guest under each."""

from __future__ import annotations

import argparse
import sys

from mh_builder.helper import build_helper
from mh_builder.image.output import write_images
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options
from mh_cli import interrupts, options
from mh_cli.errors import BAD, GOOD
from mh_cli.migrate import migrate
from mh_cli.table import print_reports

PART = PARTS["milan"]
PAGES = 1024
"""RAM contents of the guest that is migrated."""


def run(_arguments: argparse.Namespace) -> int:
    """Build and write all images, migrate under each, print one table."""
    images = {scheme: build_helper(scheme, Options.for_part(PART)) for scheme in SCHEMES}
    contents = b"".join(map(_page, range(PAGES)))
    reports = [migrate(scheme, image, PART, contents) for scheme, image in images.items()]
    interrupts.check()
    paths = write_images(images.values(), options.OUT)
    print_reports(reports)
    print(f"{len(paths)} files in {options.OUT}", file=sys.stderr)
    return GOOD if all(report.good for report in reports) else BAD


def _page(number: int) -> bytes:
    line = f"page {number} of a guest's private memory\n".encode()
    return (line * (4096 // len(line) + 1))[:4096]
