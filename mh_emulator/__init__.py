"""The machine an image runs on: encrypted memory, secure processor, KVM, vCPU, host and guest owner.

The names here are for programs that run images; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "PARTS",
    "HelperImage",
    "HelperRefused",
    "ImageError",
    "MigrationError",
    "MigrationHelperError",
    "Pair",
    "Part",
    "Report",
    "Scenario",
    "Side",
    "connected_pair",
    "migrate",
    "parse_image",
]

if TYPE_CHECKING:
    from mh_abi.errors import MigrationHelperError
    from mh_abi.image import HelperImage, ImageError, parse_image
    from mh_builder.parts import PARTS, Part
    from mh_emulator.host.migration import MigrationError, Report, Scenario
    from mh_emulator.host.migration import run as migrate
    from mh_emulator.host.ring import HelperRefused
    from mh_emulator.pair import Pair, Side, connected_pair
else:
    _HOMES = {
        "MigrationHelperError": "mh_abi.errors",
        "HelperImage": "mh_abi.image",
        "ImageError": "mh_abi.image",
        "parse_image": "mh_abi.image",
        "PARTS": "mh_builder.parts",
        "Part": "mh_builder.parts",
        "MigrationError": "mh_emulator.host.migration",
        "Report": "mh_emulator.host.migration",
        "Scenario": "mh_emulator.host.migration",
        "HelperRefused": "mh_emulator.host.ring",
        "Pair": "mh_emulator.pair",
        "Side": "mh_emulator.pair",
        "connected_pair": "mh_emulator.pair",
    }

    def __getattr__(name: str) -> object:
        if name == "migrate":
            return import_module("mh_emulator.host.migration").run
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
