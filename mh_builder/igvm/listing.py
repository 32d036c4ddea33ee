"""What an IGVM file has the loader do, for people: one line a directive, runs of pages as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mh_builder.igvm.file import Header, Igvm, page_bytes
from mh_builder.igvm.layout import (
    LARGE_PAGE,
    SHARED,
    UNMEASURED,
    Body,
    DataType,
    GuestPolicy,
    PageData,
    Parameter,
    ParameterArea,
    ParameterInsert,
    RequiredMemory,
    SnpIdBlock,
    SupportedPlatform,
    VpContext,
)

_FLAGS = {LARGE_PAGE: "2 MiB", UNMEASURED: "unmeasured", SHARED: "shared"}


@dataclass(frozen=True, slots=True)
class Line:
    """A directive, or a run of pages that follow each other in the file and in memory; `gpa` None is no memory."""

    name: str
    gpa: int | None
    size: int
    mask: int | None
    detail: str


def listing(igvm: Igvm) -> Iterator[Line]:
    """All headers but the platforms, in the order of the file."""
    run: Line | None = None
    for header in igvm.headers:
        if isinstance(header.body, SupportedPlatform):
            continue
        line = _line(header)
        if run is not None and _continues(run, line):
            run = replace(run, size=run.size + line.size)
            continue
        if run is not None:
            yield run
        run = line
    if run is not None:
        yield run


def mask_names(igvm: Igvm, mask: int | None) -> str:
    """The platforms of a mask; of a header without one, all."""
    return ", ".join(platform.name for platform, bit in igvm.platforms.items() if mask is None or mask & bit)


def _continues(run: Line, line: Line) -> bool:
    same = (run.name, run.mask, run.detail) == (line.name, line.mask, line.detail)
    return same and run.name == "PAGE_DATA" and run.gpa is not None and run.gpa + run.size == line.gpa


def _line(header: Header) -> Line:
    name, body = header.name, header.body
    match body:
        case PageData():
            return Line(name, body.gpa, page_bytes(body), body.mask, _page(body))
        case VpContext():
            return Line(name, body.gpa, page_bytes(body), body.mask, f"vCPU {body.vp_index}")
        case RequiredMemory():
            return Line(name, body.gpa, body.size, body.mask, "")
        case ParameterInsert():
            return Line(name, body.gpa, 0, body.mask, f"area {body.area}")
        case ParameterArea():
            return Line(name, None, body.size, None, f"area {body.area}")
        case _:
            return Line(name, None, 0, getattr(body, "mask", None), _detail(body))


def _page(body: PageData) -> str:
    data_type = DataType(body.data_type)
    zero = ["zero"] if data_type is DataType.NORMAL and not body.file_offset else []
    return ", ".join([data_type.name, *(text for flag, text in _FLAGS.items() if body.flags & flag), *zero])


def _detail(body: Body) -> str:
    match body:
        case Parameter():
            return f"area {body.area} at {body.byte_offset:#x}"
        case GuestPolicy():
            return f"{body.policy:#x}"
        case SnpIdBlock():
            return f"digest {body.ld.hex()}"
        case _:
            return "kept, not looked into"
