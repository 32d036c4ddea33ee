"""Layouts of built images, as a loader would put them."""

from __future__ import annotations

from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.paging import Geometry
from mh_builder.report.image import image_layout
from mh_builder.report.layout import Layout

MILAN = Geometry(48, 51)


def layout_of(image: Image, geometry: Geometry = MILAN) -> Layout:
    """The layout of `image` at its link base."""
    assert geometry.c_bit is not None
    data = parse_image(image.data).relocated(image.space.base, geometry.c_bit)
    return image_layout(data, image.space.base, geometry, image.sections)
