"""Look for tests that cannot fail: python -m emulator_tests.vacuous [--each N] [TEST ...]."""

from __future__ import annotations

import argparse
import sys

import pytest

from emulator_tests.coverage.blobs import RECORDED, blob
from emulator_tests.vacuous.loop import Loop, Outcome


def main() -> int:
    """0 if each test of the sample notices something, 1 if one notices nothing."""
    arguments = _arguments()
    for name in RECORDED:
        # Assembled here once, and in no child.
        blob(name)
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        told = "notices nothing" if outcome.is_vacuous else "is good" if outcome.noticed else "calls nothing to spoil"
        told = told if outcome.is_tried else "fails or takes minutes"
        spoiled = len(outcome.noticed) + len(outcome.missed)
        sys.stdout.write(f"{outcome.test}: {told} ({len(outcome.noticed)} of {spoiled})\n")
        sys.stdout.flush()

    quiet = ["-qq", "-p", "no:cacheprovider", "-n", "0", "--assert=plain", "-o", "tmp_path_retention_policy=none"]
    quiet += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    status = pytest.main([*quiet, *arguments.tests], plugins=[Loop(arguments.each, tell)])
    if status != pytest.ExitCode.OK:
        sys.stderr.write(f"pytest ended with {status!r} before all tests had run\n")
        return 1
    vacuous = [outcome.test for outcome in outcomes if outcome.is_vacuous]
    idle = sum(outcome.is_tried and not outcome.noticed and not outcome.missed for outcome in outcomes)
    left = sum(not outcome.is_tried for outcome in outcomes)
    sys.stdout.write(
        f"{len(outcomes)} tests: {len(vacuous)} notice nothing, {idle} call nothing that can be spoiled, "
        f"{left} fail or take minutes\n"
    )
    return 1 if vacuous else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulator_tests.vacuous", description=__doc__)
    parser.add_argument("--each", type=int, default=6, metavar="N", help="tests of each folder (default 6)")
    parser.add_argument("tests", nargs="*", default=["emulator_tests"], metavar="TEST", help="as for pytest")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
