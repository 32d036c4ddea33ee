#!/usr/bin/env python3
"""The command: see `build.py --help` and README.md."""

from __future__ import annotations

import sys

try:
    from mh_cli.main import main
except ModuleNotFoundError as missing:
    sys.exit(f"build.py: error: Python package {missing.name!r} is missing: run `make`, then .venv/bin/python build.py")

if __name__ == "__main__":
    sys.exit(main())
