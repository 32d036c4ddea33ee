"""Layouts of built images, as a loader would put them."""

from __future__ import annotations

from mh_builder.image.model import Image
from mh_builder.paging import Geometry
from mh_builder.report import open as reading
from mh_builder.report.layout import Layout

MILAN = Geometry(48, 51)


def layout_of(image: Image, geometry: Geometry = MILAN) -> Layout:
    """The layout of `image` at its link base."""
    return reading.layout_of(image, geometry)
