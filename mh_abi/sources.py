"""Where the assembly sources of the helper lie."""

from __future__ import annotations

from pathlib import Path


def _payload() -> Path:
    """In an installed package the sources lie inside it, in a checkout beside it."""
    package = Path(__file__).parent
    inside = package / "payload"
    return inside if inside.is_dir() else package.parent / "payload"


PAYLOAD = _payload()
"""The folder of `abi.h`, the helper's sources, and those of its loaders."""
