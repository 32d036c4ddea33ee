#!/usr/bin/env python3
"""The command: see `build.py --help` and README.md."""

from __future__ import annotations

import sys


def run() -> int:
    """Import and run the command; an interrupt during the imports ends like a later one."""
    try:
        from mh_cli.main import main  # noqa: PLC0415 - so that what it needs can be missed politely
    except ModuleNotFoundError as missing:
        what = f"Python package {missing.name!r} is missing: run `make`, then .venv/bin/python build.py"
        print(f"build.py: error: {what}", file=sys.stderr)
        return 1
    return main()


if __name__ == "__main__":
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        print("build.py: error: interrupted", file=sys.stderr)
        sys.exit(130)
