"""A page walk of volatility3 over a dump: `FILE CR3`, run by an interpreter that has it; imports nothing of ours.

Says how many pieces it has found, and their bytes. Source: volatility3, framework/layers/intel.py (Intel32e.mapping).
"""

from __future__ import annotations

import sys
from pathlib import Path

from volatility3.framework import contexts
from volatility3.framework.layers import elf, intel, physical


def main(path: Path, cr3: int) -> None:
    """Walk all of the address space."""
    context = contexts.Context()
    context.config["file.location"] = path.resolve().as_uri()
    context.add_layer(physical.FileLayer(context, "file", "file"))
    memory = "file"
    with path.open("rb") as file:
        is_elf = file.read(4) == b"\x7fELF"
    if is_elf:
        context.config["elf.base_layer"] = "file"
        context.add_layer(elf.Elf64Layer(context, "elf", "elf"))
        memory = "elf"
    context.config["intel.memory_layer"] = memory
    context.config["intel.page_map_offset"] = cr3
    layer = intel.Intel32e(context, "intel", "intel")
    context.add_layer(layer)
    pieces = size = 0
    for _, length, *_ in layer.mapping(0, layer.maximum_address, ignore_errors=True):
        pieces += 1
        size += length
    print(pieces, size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2], 16))
