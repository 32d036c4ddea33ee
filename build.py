#!/usr/bin/env python3
"""The command: see `build.py --help` and README.md."""

import sys

try:
    from mh_cli.main import main

    if __name__ == "__main__":
        sys.exit(main())
except KeyboardInterrupt:
    print("build.py: error: interrupted", file=sys.stderr)
    sys.exit(130)
