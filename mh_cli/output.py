"""Results for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def print_json(schema: str, result: Mapping[str, Any]) -> None:
    """Print one object to stdout; `schema` names its shape and version."""
    json.dump({"schema": f"sev-migration-helper/{schema}"} | dict(result), sys.stdout, indent=2)
    print()
