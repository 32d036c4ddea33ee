"""The regions of a layout as a table of words: what `show` prints, and what stands below a picture."""

from __future__ import annotations

from collections.abc import Iterable

from mh_builder.report.layout import Layout, Region
from mh_builder.schemes.space import human

_COLUMNS = ("virtual", "bytes", "rights", "type", "view", "page", "mirror GPA", "main GPA", "ram_addr", "purpose")
_FOREIGN = ("virtual", "bytes", "rights", "type", "view", "page", "GPA", "")
"""Of a dump: nothing is known of what lies behind."""


def listing(regions: Iterable[Region], layout: Layout) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows; of a dump without the columns that only an image of ours fills."""
    rows = [_cells(region, layout) for region in regions]
    if layout.plan is not None:
        return _COLUMNS, rows
    return _FOREIGN, [(*row[:7], row[9]) for row in rows]


def _cells(region: Region, layout: Layout) -> tuple[str, ...]:
    """A region as the cells of a row."""
    mapping, backing = region.mapping, region.backing
    again = f" again every {human(mapping.period)}" if mapping.period else ""
    return (
        f"{mapping.va:#x}",
        human(mapping.size),
        mapping.rights + ("u" if mapping.user else "") + ("g" if mapping.is_global else ""),
        " ".join(
            (layout.memory_type(mapping), *([f"key {mapping.key}"] if mapping.key else []), *layout.marks(mapping))
        ),
        layout.view(mapping),
        human(mapping.page_bytes),
        f"{mapping.gpa:#x}",
        "-" if backing is None or backing.main_gpa is None else f"{backing.main_gpa:#x}",
        "-" if backing is None or backing.ram_addr is None else f"{backing.ram_addr:#x}",
        region.purpose + again,
    )
