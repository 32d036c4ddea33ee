"""The two loaders that there are, as the drivers that firmware starts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from emulator_tests.edk2.emulated_driver import build_driver
from mh_builder.firmware.driver import build_loader
from mh_builder.needs import by_name, trouble
from ovmf_patches import FOLDER
from ovmf_patches.sources import SUITES

SOURCES = FOLDER.parent / ".cache" / "edk2"
HEADERS = SOURCES / max(SUITES) / "MdePkg" / "Include"
"""Those of the youngest release that Debian has."""


class Unavailable(Exception):
    """A loader cannot be built here; the message says what is missing."""


@cache
def build_c_driver() -> bytes:
    """`ovmf_patches/driver`, or `Unavailable`."""
    compiler, objcopy = (by_name(name) for name in ("cc", "objcopy"))
    missing = [f"{need.name} {why}" for need in (compiler, objcopy) if (why := trouble(need))]
    if not HEADERS.is_dir():
        missing.append(f"{HEADERS} is not there: run `make sources`")
    if missing:
        raise Unavailable("; ".join(missing))
    with tempfile.TemporaryDirectory() as folder:
        return build_driver(str(compiler.path), str(objcopy.path), HEADERS, Path(folder))


LOADERS: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {"`payload/loader`": build_loader, "`ovmf_patches/driver`": build_c_driver}
)
"""Name in the documentation -> the PE32+ file."""
