"""Run mutants or join what several runs found: python -m emulator_tests.mutation [--shard K/N] | --join FILE ..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from emulator_tests.coverage.blobs import RECORDED, blob
from emulator_tests.mutation import record
from emulator_tests.mutation.loop import Loop, files
from emulator_tests.mutation.mutants import Mutant, mutants
from emulator_tests.mutation.plant import changed
from emulator_tests.mutation.results import Result, Results, is_good, read, summary
from emulator_tests.shards import shard


def main() -> int:
    """0 if each mutant is noticed or carries a reason, 1 if one lives, 2 for a wrong command line."""
    arguments = _arguments()
    if arguments.join:
        return _tell([result for path in arguments.join for result in read(path)], _chosen(arguments.only))
    path = arguments.folder / record.NAME
    if not path.exists():
        sys.stderr.write(f"{path}: no record: `make mutate` makes it\n")
        return 2
    tests = record.read(path)
    part, parts = arguments.shard
    chosen = _chosen(arguments.only)[part - 1 :: parts]
    results = Results(arguments.folder / f"results-{part}-of-{parts}.jsonl", len(chosen))
    waiting = [mutant for mutant in chosen if mutant not in results.found]
    loop = Loop(waiting, tests, results, arguments.jobs, arguments.seconds)
    # A child must not complain of the assembler's process, which is its parent's.
    quiet = ["-qq", "-p", "no:cacheprovider", "-n", "0", "--assert=plain", "-o", "tmp_path_retention_policy=none"]
    quiet += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    # What fails has noticed the fault, in however large an example.
    settings.register_profile("mutation", phases=[Phase.explicit, Phase.reuse, Phase.generate])
    settings.load_profile("mutation")
    status = pytest.main([*quiet, *files(tests)], plugins=[loop])
    if status != pytest.ExitCode.OK:
        sys.stderr.write(f"pytest ended with {status!r} before all mutants had run\n")
        return 1
    return _tell(list(results.found.values()), chosen)


def _chosen(texts: Sequence[str]) -> list[Mutant]:
    with changed(None):
        # Assembled here once, and in no child.
        for name in RECORDED:
            blob(name)
    return [mutant for mutant in mutants(RECORDED) if any(text in mutant.line for text in texts)]


def _tell(results: Sequence[Result], chosen: Sequence[Mutant]) -> int:
    sys.stderr.write("\n")
    for line in summary(results, chosen):
        sys.stdout.write(f"{line}\n")
    return 0 if is_good(results, chosen) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulator_tests.mutation", description=__doc__)
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="K/N", help="the K-th of N parts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants that run at once")
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds of passing tests until one lives")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="those whose file:line has it in it")
    parser.add_argument("--folder", type=Path, default=record.FOLDER, help="of the record and the results")
    parser.add_argument("--join", type=Path, nargs="+", metavar="FILE", help="say what these parts found together")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
