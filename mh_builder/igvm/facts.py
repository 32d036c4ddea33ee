"""What an IGVM file has beside its firmware, as facts: directives, and the memory that they fill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mh_builder.firmware.facts import Fact, Part, Value, numbered
from mh_builder.igvm.file import Igvm
from mh_builder.igvm.firmware import memory_of
from mh_builder.igvm.listing import Line, listing, mask_names


def facts_of_igvm(igvm: Igvm) -> tuple[Fact, ...]:
    """Platforms and directives in the order of the file, then memory. Raises `FirmwareError` without firmware."""
    facts = [
        Fact(Part.DIRECTIVE, "IGVM", f"platform {one.name}", {"mask": mask}) for one, mask in igvm.platforms.items()
    ]
    facts += [_directive(igvm, line) for line in listing(igvm)]
    return (*numbered(facts), *_memory(igvm))


def _directive(igvm: Igvm, line: Line) -> Fact:
    title = line.name if line.gpa is None else f"{line.name} at {line.gpa:#x}"
    fields: dict[str, Value] = {"size": line.size, "platforms": mask_names(igvm, line.mask), "detail": line.detail}
    return Fact(Part.DIRECTIVE, "IGVM", title, fields)


def _memory(igvm: Igvm) -> Iterator[Fact]:
    for gpa, data in memory_of(igvm):
        fields: dict[str, Value] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        yield Fact(Part.MEMORY, "memory", f"memory at {gpa:#x}", fields)
