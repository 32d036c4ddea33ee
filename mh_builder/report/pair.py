"""Two layouts side by side: what they have in common, and what not, as a table and as one picture."""

from __future__ import annotations

from collections.abc import Iterator

from mh_abi.errors import MigrationHelperError
from mh_builder.report.chart import Chain, Column, Detail, Look, Picture, stack, unmapped, unmapped_virtual
from mh_builder.report.diff import Change, Kind, pairs
from mh_builder.report.layout import Layout, Region
from mh_builder.report.picture import look_of
from mh_builder.schemes.space import human

MOST_DRAWN = 400
"""Rows of a picture; more of them cannot be told apart."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

Places = tuple[int | None, int | None, int | None, int | None]


class TooManyError(MigrationHelperError, ValueError):
    """Layouts with more regions than a picture has room for."""


def different(before: Layout, after: Layout) -> Table:
    """Titles and rows of what is not the same in both."""
    rows: list[tuple[str, ...]] = [
        (
            " and ".join(kind.value for kind in pair.kinds),
            _what(pair),
            _words(pair.before, before),
            _words(pair.after, after),
        )
        for pair in pairs(before, after)
        if pair.kinds
    ]
    return ("difference", "what", before.name, after.name), rows


def same(before: Layout, after: Layout) -> Table:
    """Titles and rows of what is the same in both."""
    rows: list[tuple[str, ...]] = [
        (_what(pair), _words(pair.before, before)) for pair in pairs(before, after) if not pair.kinds
    ]
    return ("what", "in both"), rows


def _what(pair: Change) -> str:
    region = pair.before or pair.after
    size = "" if region is None else human(region.mapping.size)
    return f"{pair.purpose} {size}".strip()


def _words(region: Region | None, layout: Layout) -> str:
    if region is None:
        return "-"
    mapping = region.mapping
    user, view = "u" if mapping.user else "", "" if layout.geometry.c_bit is None else f" {mapping.view}"
    odd = "".join(f" {word}" for word in layout.attributes(mapping))
    place = f"{mapping.va:#x} {mapping.rights}{user}{view}{odd} {human(mapping.page_bytes)} to GPA {mapping.gpa:#x}"
    return f"{place}{'' if region.backing is None else _behind(*region.backing.memory)}"


def _behind(kind: str, address: int) -> str:
    """Which memory lies behind a GPA of an image of ours."""
    return ", the mirror's own" if kind == "mirror GPA" else f", {kind} {address:#x}"


def joined_picture(before: Layout, after: Layout) -> Picture:
    """Both address spaces, joined where the virtual sides meet. Raises `TooManyError`."""
    found = pairs(before, after)
    if len(found) > MOST_DRAWN:
        raise TooManyError(f"{len(found)} regions, up to {MOST_DRAWN} can be drawn side by side")
    chains = tuple(chain for pair in found for chain in _chains(pair, before, after))
    gaps = (
        unmapped,
        unmapped_virtual(before.geometry.levels),
        unmapped_virtual(after.geometry.levels),
        unmapped,
    )
    columns = (
        ("GPA", before.name, Detail.SIZE),
        ("virtual", before.name, Detail.RIGHTS),
        ("virtual", after.name, Detail.RIGHTS),
        ("GPA", after.name, Detail.SIZE),
    )
    return Picture(
        f"{before.name} and {after.name}",
        chains,
        tuple(
            Column(*column, tuple(stack(number, chains, gap)))
            for number, (column, gap) in enumerate(zip(columns, gaps, strict=True))
        ),
    )


def _chains(pair: Change, before: Layout, after: Layout) -> Iterator[Chain]:
    """One for both, or one each where rights or the view are others."""
    places: Places
    changed = " and ".join(kind.value for kind in pair.kinds)
    left = None if pair.before is None else _side(pair.before)
    right = None if pair.after is None else _side(pair.after)
    if pair.before and pair.after and left and right and not {Kind.RIGHTS, Kind.VIEW} & set(pair.kinds):
        places = (left[1], left[0], right[0], right[1])
        yield Chain(pair.before, places, pair.before.mapping.size, _look(pair.before, before), changed)
        return
    if pair.before and left:
        places = (left[1], left[0], None, None)
        yield Chain(pair.before, places, pair.before.mapping.size, _look(pair.before, before), changed)
    if pair.after and right:
        places = (None, None, right[0], right[1])
        yield Chain(pair.after, places, pair.after.mapping.size, _look(pair.after, after), changed)


def _side(region: Region) -> tuple[int, int | None]:
    """Virtual address and GPA; of what repeats the GPA is not as large as the virtual side."""
    return region.mapping.va, None if region.mapping.period else region.mapping.gpa


def _look(region: Region, layout: Layout) -> Look:
    return Look.PLAIN if layout.geometry.c_bit is None else look_of(region.mapping.private)
