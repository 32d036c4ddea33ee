"""What an IGVM file has beside its firmware, as facts: directives, and the memory that they fill."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from mh_builder.firmware.facts import Fact, Part, numbered
from mh_builder.igvm.file import Igvm
from mh_builder.igvm.firmware import memory_of
from mh_builder.igvm.layout import VpContext
from mh_builder.igvm.listing import Line, listing, mask_names


def facts_of_igvm(igvm: Igvm) -> tuple[Fact, ...]:
    """Platforms and directives in the order of the file, then memory. Raises `FirmwareError` without firmware."""
    facts = [
        Fact(Part.DIRECTIVE, "IGVM", f"platform {one.name}", {"mask": mask}) for one, mask in igvm.platforms.items()
    ]
    facts += [_directive(igvm, line) for line in listing(igvm)]
    return (*numbered((*facts, *_registers(igvm))), *_memory(igvm))


def _directive(igvm: Igvm, line: Line) -> Fact:
    place = "" if line.gpa is None else f" at {line.gpa:#x}"
    title = f"{line.name}{place} for {mask_names(igvm, line.mask)}"
    return Fact(Part.DIRECTIVE, "IGVM", title, {"size": line.size, "detail": line.detail})


def _registers(igvm: Igvm) -> Iterator[Fact]:
    for body in igvm.bodies(VpContext):
        title = f"registers of vCPU {body.vp_index} for {mask_names(igvm, body.mask)}"
        yield Fact(Part.MEMORY, "memory", title, {"sha256": sha256(igvm.contents(body) or b"").hexdigest()})


def _memory(igvm: Igvm) -> Iterator[Fact]:
    for gpa, data in memory_of(igvm):
        yield Fact(
            Part.MEMORY, "memory", f"memory at {gpa:#x}", {"size": len(data), "sha256": sha256(data).hexdigest()}
        )
