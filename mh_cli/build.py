"""`build`: images of one scheme or all."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.helper import build_helper
from mh_builder.image.manifest import manifest
from mh_builder.image.output import write_images
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    options.add_scheme(parser, help_text="one scheme (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=options.OUT, metavar="DIR", help="folder (default out)")
    options.add_layout(parser)
    options.add_helper_vcpus(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build, write all files or none, and say what was written."""
    chosen = options.layout(arguments)
    images = [build_helper(scheme, chosen) for scheme in options.schemes(arguments)]
    paths = write_images(images, arguments.output)
    if arguments.json:
        print_json("build/1", {"images": [manifest(image) for image in images]})
        return GOOD
    for path in paths:
        print(path)
    return GOOD
