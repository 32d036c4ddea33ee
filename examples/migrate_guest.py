"""Migrate a guest between two emulated platforms, and say what the hosts have seen of it."""

from __future__ import annotations

import sys

from mh_builder import Options, build_helper
from mh_emulator import PARTS, MigrationHelperError, Scenario, migrate, parse_image


def main() -> int:
    """Migrate 64 KiB of RAM under `isolated`, on Milan."""
    part = PARTS["milan"]
    image = build_helper("isolated", Options.for_part(part))
    ram = b"what the guest keeps in its memory. ".ljust(4096) * 16
    try:
        report = migrate(Scenario("isolated", part, parse_image(image.data), image.table_bytes, ram))
    except MigrationHelperError as error:
        print(error, file=sys.stderr)
        return 1
    seen = report.source_plain_pages + report.target_plain_pages
    print(f"{report.pages} pages moved, hosts see {seen} of them, guest right: {report.guest_ok}")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
