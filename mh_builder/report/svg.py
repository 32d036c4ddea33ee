"""The picture of a layout as SVG 1.1: no script, no font, no file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from mh_builder.report.chart import Band, Chain, Detail, Look, Picture, Shape, rounded
from mh_builder.report.layout import RAM, Layout
from mh_builder.report.picture import picture
from mh_builder.schemes.space import human


@dataclass(frozen=True, slots=True)
class Style:
    """Distances in pixels at the picture's own width."""

    width: int
    label: int
    """Room for addresses, left of each bar."""
    bar: int
    margin: int
    font: float
    head: int
    is_short: bool
    """Addresses as 64 MiB, not as 0x4000000, and no words in bars but the sections' names."""


WIDE = Style(width=1200, label=118, bar=132, margin=12, font=10.5, head=58, is_short=False)
NARROW = Style(width=368, label=40, bar=52, margin=2, font=9.0, head=66, is_short=True)

_CSS = """
.mh-space{--ink:#1b1f24;--dim:#59636e;--paper:#fff;--private:#2f5f9e;--on-private:#fff;--shared:#f4c27a;--stripe:#8a4b00;
--gap:#f3f4f6;--guard:#b42318;font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif}
@media (prefers-color-scheme:dark){.mh-space{--ink:#e6e9ed;--dim:#9aa4af;--paper:#14171a;--private:#5d93da;
--on-private:#06121f;--shared:#a8671a;--stripe:#ffd9a0;--gap:#1e2227;--guard:#ff8a7a}}
.mh-space text{fill:var(--ink)}.mh-space .dim{fill:var(--dim)}
.mh-space .mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}
.mh-space .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.mh-space .private rect{fill:var(--private);stroke:var(--paper);stroke-width:.8}
.mh-space .plain rect{fill:var(--private);stroke:var(--paper);stroke-width:.8}
.mh-space .plain .join{fill:var(--private);opacity:.2}.mh-space .plain text{fill:var(--on-private)}
.mh-space .changed rect{stroke:var(--guard);stroke-width:1.6}
.mh-space .changed .join{stroke:var(--guard);stroke-dasharray:5 3;stroke-width:1}
.mh-space .shared rect{stroke:var(--stripe);stroke-width:.8}
.mh-space .private .join{fill:var(--private);opacity:.2}.mh-space .shared .join{opacity:.35}
.mh-space .only{stroke:var(--private);stroke-dasharray:4 3;stroke-width:.8}
.mh-space .private text{fill:var(--on-private)}.mh-space .shared text{fill:var(--ink)}
.mh-space .gap{fill:var(--gap);stroke:var(--dim);stroke-width:.7;stroke-dasharray:2 2}
.mh-space .empty rect{fill:var(--gap);stroke:var(--private);stroke-width:.8;stroke-dasharray:3 2}
.mh-space .empty text{fill:var(--dim)}.mh-space .empty .join{fill:var(--private);opacity:.08}
.mh-space .guard{fill:var(--paper);stroke:var(--guard);stroke-width:1}
.mh-space text.guard{fill:var(--guard);stroke:none}
.mh-space .chain:hover .join{opacity:.75}.mh-space .chain:hover rect{stroke:var(--ink);stroke-width:2}
"""

_LEGEND = (
    (Look.PRIVATE, "private: C-bit set, the CPU decrypts"),
    (Look.SHARED, "shared: C-bit clear, raw bytes"),
    (Look.PLAIN, "mapped"),
    (Look.EMPTY, "no RAM on a q35"),
)

_LEGEND_STEP = 13

_NO_NAME = re.compile(r"[^A-Za-z0-9-]+")
"""What a name in a document cannot have everywhere."""


def draw(layout: Layout, style: Style = WIDE) -> str:
    """One SVG element. Raises `NoPictureError` where `layout` is of an image that is not ours."""
    return draw_picture(picture(layout), style)


def draw_picture(shown: Picture, style: Style = WIDE) -> str:
    """One SVG element of any picture."""
    return _Drawing(shown, style).text()


class _Drawing:
    def __init__(self, shown: Picture, style: Style) -> None:
        self._shown, self._style = shown, style
        self._stripes = f"stripes-{_NO_NAME.sub('-', shown.name)}-{style.width}"
        self._keys = self._legend_words()
        # A narrow picture has its legend one below the other.
        self._head = style.head + (_LEGEND_STEP * max(0, len(self._keys) - 3) if style.is_short else 0)
        self._pitch = (style.width - 2 * style.margin - style.label - style.bar) / (len(shown.columns) - 1)
        self._height = self._head + max(column.height for column in shown.columns) + 24

    def text(self) -> str:
        width, height, name = self._style.width, f"{self._height:g}", escape(self._shown.name)
        box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-size="{self._style.font}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="mh-space" role="img" {box}>',
            f"<title>Address spaces of {name}</title>",
            f"<style>{_CSS}</style>",
            f"<defs>{self._pattern()}</defs>",
            f'<rect width="{width}" height="{height}" style="fill:var(--paper)"/>',
            *self._heads(),
            *self._legend(),
            *self._gaps(),
            *(line for number, chain in enumerate(self._shown.chains) for line in self._chain(number, chain)),
            *self._addresses(),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _pattern(self) -> str:
        ground = '<rect width="6" height="6" style="fill:var(--shared);stroke:none"/>'
        stripe = '<rect width="1.6" height="6" style="fill:var(--stripe);stroke:none"/>'
        place = 'width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"'
        return f'<pattern id="{self._stripes}" {place}>{ground}{stripe}</pattern>'

    def _bar(self, column: int) -> float:
        """Left edge of a column's bar."""
        return self._style.margin + self._style.label + column * self._pitch

    def _heads(self) -> Iterator[str]:
        style = self._style
        for number, column in enumerate(self._shown.columns):
            middle = self._bar(number) + style.bar / 2
            bottom = self._head - 8
            if style.is_short:
                yield f'<text x="{middle:g}" y="{bottom}" text-anchor="middle" font-weight="600">{column.title}</text>'
                continue
            yield (
                f'<text x="{middle:g}" y="{bottom - 14}" text-anchor="middle" font-weight="600" font-size="14">'
                f'{column.title}</text><text x="{middle:g}" y="{bottom}" text-anchor="middle" class="dim">'
                f"{escape(column.note)}</text>"
            )

    def _legend_words(self) -> list[tuple[str, str]]:
        """(class, what it means) of what there is."""
        looks = {chain.look for chain in self._shown.chains}
        words = [(look.value, text) for look, text in _LEGEND if look in looks]
        if any(chain.changed for chain in self._shown.chains):
            words.append(("changed", "another one in the other layout"))
        return [*words, ("gap", "break: not mapped, any size; heights grow with log(size)")]

    def _legend(self) -> Iterator[str]:
        style = self._style
        x, y = float(style.margin), 6.0
        fills = {
            "shared": f' style="fill:url(#{self._stripes})"',
            "changed": ' style="fill:none"',
            "gap": ' class="gap"',
        }
        for kind, text in self._keys:
            shape = f'<rect x="{x:g}" y="{y:g}" width="14" height="10"{fills.get(kind, "")}/>'
            yield f'<g class="{kind}">{shape}</g><text x="{x + 19:g}" y="{y + 9:g}">{escape(text)}</text>'
            x, y = (x, y + _LEGEND_STEP) if style.is_short else (x + 38 + 5.4 * len(text), y)

    def _gaps(self) -> Iterator[str]:
        style = self._style
        for number, column in enumerate(self._shown.columns):
            for band in column.bands:
                if band.chain is not None:
                    continue
                x, y = self._bar(number), self._head + band.top
                tip = _range(band.start, band.end) if band.size else ""
                words = _brief(band) if style.is_short else band.words
                yield f"<g><title>{escape(words)} {tip}</title>{_SHAPES[band.shape](x, y, style.bar, band.height)}"
                yield from self._inside(x, band, words, "guard" if band.shape is Shape.GUARD else "dim")
                yield "</g>"

    def _inside(self, x: float, band: Band, words: str, kind: str) -> Iterator[str]:
        """Words in a bar, as far as they fit."""
        style = self._style
        middle = self._head + band.top + band.height / 2 + style.font * 0.35
        room = int((style.bar - 6) / (style.font * 0.53))
        line = words if len(words) <= room else f"{words[: room - 1]}…"
        x += style.bar / 2
        yield f'<text x="{x:g}" y="{middle:g}" text-anchor="middle" class="{kind}">{escape(line)}</text>'

    def _chain(self, number: int, chain: Chain) -> Iterator[str]:
        style = self._style
        kind = chain.look.value
        fill = f' style="fill:url(#{self._stripes})"' if kind == "shared" else ""
        halo = "halo" if kind == "shared" else ""
        kinds = f"{kind} changed" if chain.changed else kind
        yield f'<g class="chain {kinds}"><title>{escape(self._tip(chain))}</title>'
        for (first, *left), (second, *right) in pairwise(self._spots(number, chain)):
            path = _join(self._bar(first) + style.bar, left, self._bar(second), right)
            passes = " only" if second - first > 1 else ""
            yield f'<path class="join{passes}" d="{path}" transform="translate(0 {self._head})"{fill}/>'
        for column, band in self._bands():
            if band.chain == number:
                x, y = self._bar(column), self._head + band.top
                yield f'<rect x="{x:g}" y="{y:g}" width="{style.bar}" height="{band.height:g}"{fill}/>'
                yield from self._inside(x, band, self._words(column, chain), halo)
        yield "</g>"

    def _bands(self) -> Iterator[tuple[int, Band]]:
        """(number of the column, band) of all columns."""
        for number, column in enumerate(self._shown.columns):
            for band in column.bands:
                yield number, band

    def _spots(self, number: int, chain: Chain) -> Iterator[tuple[int, float, float]]:
        """(column, top, height) of each place of a chain, also where another chain's bar is drawn there."""
        own = {column: band for column, band in self._bands() if band.chain == number}
        for column, shown in enumerate(self._shown.columns):
            place = chain.places[column]
            if column in own:
                yield column, own[column].top, own[column].height
            elif place is not None and (spot := shown.find(place, chain.size)) is not None:
                yield column, *spot

    def _words(self, column: int, chain: Chain) -> str:
        region = chain.region
        name = region.purpose
        if name == RAM:
            name = "no RAM" if chain.look is Look.EMPTY else "RAM"
        detail = self._shown.columns[column].detail
        if detail is Detail.NOTHING or (name and self._style.is_short):
            return name
        if detail is Detail.SIZE:
            return ", ".join(filter(None, (name, rounded(chain.size))))
        has_pages = detail is Detail.PAGES and region.purpose == RAM
        pages = f" {human(region.mapping.page_bytes)} pages" if has_pages else ""
        return f"{name} {region.mapping.rights}{pages}".strip()

    def _tip(self, chain: Chain) -> str:
        mapping = chain.region.mapping
        names = [column.note if column.title == "DRAM" else column.title for column in self._shown.columns]
        places = [
            f"{name} {_range(start, start + chain.size)}" if start is not None else f"{name}: none"
            for name, start in zip(names, chain.places, strict=True)
        ]
        view = "" if chain.look is Look.PLAIN else f" {mapping.view},"
        head = f"{chain.region.purpose or 'mapped'}: {mapping.rights},{view} {human(chain.size)}"
        changed = [f"different: {chain.changed}"] if chain.changed else []
        return "\n".join([f"{head} in pages of {human(mapping.page_bytes)}", *changed, *places])

    def _addresses(self) -> Iterator[str]:
        style = self._style
        kind = "halo dim" if style.is_short else "halo dim mono"
        for number, column in enumerate(self._shown.columns):
            x, last, before = self._bar(number) - 4, -100.0, ""
            for band in column.bands:
                if not band.size or (band.start == 0 and band.top):
                    continue
                y = self._head + band.top + style.font * 0.8
                text = _short(band.start) if style.is_short else f"{band.start:#x}"
                if y - last >= style.font and text and text != before:
                    before = text
                    yield f'<text x="{x:g}" y="{y:g}" text-anchor="end" class="{kind}">{text}</text>'
                    last = y
            ends = [band for band in column.bands if band.size and not (band.start == 0 and band.top)]
            if ends and not style.is_short:
                y = self._head + ends[-1].top + ends[-1].height + style.font * 0.8
                yield f'<text x="{x:g}" y="{y:g}" text-anchor="end" class="{kind}">{ends[-1].end:#x}</text>'


def _join(x0: float, left: Sequence[float], x1: float, right: Sequence[float]) -> str:
    """The path of a band between two places, each (top, height)."""
    y0, y1 = left[0], right[0]
    z0, z1 = y0 + left[1], y1 + right[1]
    middle = (x0 + x1) / 2
    curve = f"M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}"
    return f"{curve}V{z1:g}C{middle:g} {z1:g} {middle:g} {z0:g} {x0:g} {z0:g}Z"


def _range(start: int, end: int) -> str:
    return f"{start:#x} to {end:#x}"


def _brief(band: Band) -> str:
    """What a narrow bar has room for."""
    if band.shape is Shape.GUARD:
        return band.words
    if band.shape is Shape.NOTE:
        return "mirror's"
    return rounded(band.size) if band.size and "canonical" not in band.words else ""


def _short(address: int) -> str:
    """An address that people can say, or nothing."""
    text = human(address)
    return text if len(text) <= 8 and "bytes" not in text else "0" if not address else ""


def _box(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{height - 1:g}" class="guard"/>'


def _torn(x: float, y: float, width: float, height: float) -> str:
    """A box with torn edges: what is between them is not to scale."""
    teeth = 8
    step = width / teeth
    upper = "".join(f"L{x + (i + 1) * step:g} {y + 2 + (3 if i % 2 == 0 else 0):g}" for i in range(teeth))
    bottom = y + height - 2
    lower = "".join(f"L{x + (teeth - 1 - i) * step:g} {bottom - (3 if i % 2 == 0 else 0):g}" for i in range(teeth))
    return f'<path d="M{x:g} {y + 2:g}{upper}L{x + width:g} {bottom:g}{lower}Z" class="gap"/>'


_SHAPES = {Shape.GUARD: _box, Shape.BREAK: _torn, Shape.NOTE: lambda *_place: ""}
"""What is drawn where there is no memory; a note is words alone."""
