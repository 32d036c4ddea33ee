"""The manifest beside an image: the same facts for programs. Addresses are hex strings, sizes are numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mh_builder.image.model import Image
from mh_builder.schemes.space import HELPER_VA

SCHEMA = "sev-migration-helper/image/1"


def manifest(image: Image) -> dict[str, Any]:
    """All that a program may want to know of an image, JSON-ready."""
    space = image.space
    names = {symbol.name for symbol in image.symbols if symbol.is_global}
    return {
        "schema": SCHEMA,
        "scheme": space.name,
        "sha256": hashlib.sha256(image.data).hexdigest(),
        "image_bytes": len(image.data),
        "memory_bytes": image.memory_bytes,
        "table_bytes": image.table_bytes,
        "mirror_gpa": hex(space.base),
        "main_gpa": None if space.home is None else hex(space.home),
        "moves": space.moves,
        "c_bit": space.options.c_bit,
        "largest_page": space.options.largest_page,
        "window": hex(space.window),
        "ram_limit": hex(space.options.ram_limit),
        "start": space.options.start.value,
        "entry64": hex(image.symbol("entry64").value),
        "entry32": hex(space.base + image.symbol("entry32").value - HELPER_VA) if "entry32" in names else None,
        "ram": [
            {"va": hex(span.va), "gpa": hex(span.gpa), "bytes": span.size, "rights": "rw-", "private": span.private}
            for span in space.ram_spans()
        ],
        "sections": [
            {
                "name": section.name,
                "va": hex(section.va),
                "offset": section.offset,
                "bytes": section.size,
                "file_bytes": section.stored,
                "rights": section.rights,
                "private": section.private,
            }
            for section in image.sections
            if section.size
        ],
        "protected": [{"start": hex(part.start), "end": hex(part.end)} for part in space.protected],
        "regions": [
            {
                "main_gpa": hex(part.main_gpa),
                "bytes": part.length,
                "mirror_gpa": hex(part.mirror_gpa),
                "private": part.is_private,
            }
            for part in space.tuples(image.section(".ring").offset)
        ],
        "relocations": [
            {"offset": part.offset, "count": part.count, "kinds": part.kinds} for part in image.relocations
        ],
    }


def write_manifest(image: Image) -> str:
    """The manifest as text."""
    return json.dumps(manifest(image), indent=2) + "\n"
