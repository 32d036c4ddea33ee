"""A whole report on scale: the model's laws, how it did, and its curves, as a page too."""

from __future__ import annotations

from typing import Any, NamedTuple

from mh_bench import scale
from mh_bench.counts import count
from mh_bench.plot import Axis, Line, plot
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.report.html import PageSection, page, table
from mh_builder.schemes.space import human

_SHARED = (0, 25, 50, 75)
_MIX_RAM = 64 * GIB


class Scaling(NamedTuple):
    """What `measure` found."""

    kernel: str
    """The one that the times are of."""
    page_seconds: float
    """Of the cipher, for a page on the slower side."""
    laws: scale.Laws
    checks: list[scale.Check]
    curve: list[scale.Point]
    mixes: list[scale.Point]
    """By the part of RAM that is shared."""

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "kernel": self.kernel,
            "page_seconds": self.page_seconds,
            "exit_seconds_assumed": scale.EXIT_SECONDS,
            "laws": {name: law._asdict() for name, law in self.laws._asdict().items()},
            "checks": [self._check(item) for item in self.checks],
            "chunks": [self._chunk(chunk) for chunk in scale.CHUNKS],
            "curve": [_plain(point) for point in self.curve],
            "mixes": [_plain(point) for point in self.mixes],
        }

    def _check(self, item: scale.Check) -> dict[str, Any]:
        model = {"exported": item.exported, "imported": item.imported, "wire_bytes": item.wire_bytes}
        return {"counted": item.counted._asdict(), "model": model, "error": item.error}

    def _chunk(self, chunk: int) -> dict[str, Any]:
        exported, imported = scale.instructions_per_page(self.laws, chunk)
        return {"chunk": chunk, "exported": exported, "imported": imported}


def _plain(point: scale.Point) -> dict[str, Any]:
    return point._asdict() | {"guest": point.guest._asdict()}


def measure(kernel: str, page_seconds: float) -> Scaling:
    """Count, fit, check and draw out; `page_seconds` is that kernel's. Raises `CountError`."""
    counts = count((*scale.FITTED, *scale.CHECKED))
    laws = scale.fit(counts[: len(scale.FITTED)])
    return Scaling(
        kernel=kernel,
        page_seconds=page_seconds,
        laws=laws,
        checks=[scale.check(laws, item) for item in counts[len(scale.FITTED) :]],
        curve=[scale.point(laws, page_seconds, scale.Guest(ram, rings)) for rings in scale.RINGS for ram in scale.RAM],
        mixes=[scale.point(laws, page_seconds, scale.Guest(_MIX_RAM, 1, shared)) for shared in _SHARED],
    )


POINT_COLUMNS = ("RAM", "rings", "shared", "time", "KVM_RUN calls", "on the wire", "helper", "page tables")
CHECK_COLUMNS = ("pages", "chunk", "instructions to export", "the model", "to import", "the model", "off by at most")


def point_row(point: scale.Point) -> list[str]:
    """One of `POINT_COLUMNS`."""
    guest = point.guest
    return [
        *(human(guest.ram_bytes), str(guest.rings), f"{guest.shared_percent} %", _duration(point.seconds)),
        *(f"{point.submissions:,}", human(int(point.wire_bytes)), human(point.helper_bytes), human(point.table_bytes)),
    ]


def check_row(check: scale.Check) -> list[str]:
    """One of `CHECK_COLUMNS`."""
    found = check.counted
    return [
        *(str(found.pages), str(found.chunk), f"{found.exported:,}", f"{check.exported:,.0f}"),
        *(f"{found.imported:,}", f"{check.imported:,.0f}", f"{100 * check.error:.2f} %"),
    ]


def render(found: Scaling) -> str:
    """The page."""
    lead = (
        f"Kernel {found.kernel} of this computer: {found.page_seconds * 1e9:.0f} ns a page on the slower side. "
        f"A KVM_RUN is assumed to cost {scale.EXIT_SECONDS * 1e6:g} µs; every ring has a core; the network is faster."
    )
    return page(
        "The migration helper at scale",
        lead,
        [
            PageSection("Time by RAM and rings", _times(found) + table(POINT_COLUMNS, map(point_row, found.curve))),
            PageSection("Chunks", _chunks(found)),
            PageSection("Shared pages", table(POINT_COLUMNS, map(point_row, found.mixes))),
            PageSection("The model against counted runs", table(CHECK_COLUMNS, map(check_row, found.checks))),
        ],
    )


def _times(found: Scaling) -> str:
    lines = [
        Line(
            f"{rings} ring{'s' if rings > 1 else ''}",
            [(point.guest.ram_bytes, point.seconds) for point in found.curve if point.guest.rings == rings],
        )
        for rings in scale.RINGS
    ]
    ticks = _decades(min(point.seconds for point in found.curve), max(point.seconds for point in found.curve))
    axes = Axis("RAM of the guest", lambda value: human(int(value)), scale.RAM), Axis("time", _duration, ticks)
    return f'<figure class="scroll">{plot(lines, *axes)}</figure>'


def _chunks(found: Scaling) -> str:
    lines = []
    for number, side in enumerate(("source", "target")):
        computed = [(chunk, scale.instructions_per_page(found.laws, chunk)[number]) for chunk in scale.CHUNKS]
        seen = [
            (check.counted.chunk, (check.counted.exported, check.counted.imported)[number] / check.counted.pages)
            for check in found.checks
        ]
        lines.append(Line(side, computed, seen))
    low = min(y for line in lines for _, y in line.computed)
    ticks = [low * factor for factor in (0.98, 1, 1.05, 1.1, 1.2)]
    chunks = Axis("pages of a packet", lambda value: f"{value:g}", scale.CHUNKS)
    up = Axis("instructions for a page", lambda value: f"{value:,.0f}", ticks)
    words = f"Circles are counted, lines computed. Of a page's {PAGE_BYTES} bytes nearly all is AES and GHASH."
    return f'<figure class="scroll">{plot(lines, chunks, up)}<figcaption>{words}</figcaption></figure>'


def _decades(low: float, high: float) -> list[float]:
    ticks = [1e-6]
    while ticks[-1] < high:
        ticks.append(ticks[-1] * 10)
    return [tick for tick in ticks if tick * 10 > low]


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= 0.9999 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"
