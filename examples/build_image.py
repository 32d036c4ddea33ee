"""Build the helper for one scheme and one processor, and write its files: `build_image.py [FOLDER]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mh_builder import PARTS, LayoutError, Options, build_helper, write_images


def main(folder: Path) -> int:
    """Write the image; say what was written, or why there is none."""
    options = replace(Options.for_part(PARTS["genoa"]), ram_limit=64 << 30, vcpus=2)
    try:
        image = build_helper("regions", options)
    except LayoutError as error:
        print(error, file=sys.stderr)
        return 1
    for path in write_images([image], folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "out")))
