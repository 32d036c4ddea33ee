"""Fuzz the linked helper: python -m emulator_tests.fuzz [--shard K/N] | --join FOLDER ... | --show FILE ..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from emulator_tests.fuzz import corpus
from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import loads
from emulator_tests.fuzz.seeds import SEEDS
from emulator_tests.fuzz.workers import Limits, Workers, violations
from emulator_tests.shards import shard


def main() -> int:
    """0 if nothing was violated, 1 if something was, 2 for a wrong command line."""
    arguments = _arguments()
    if arguments.join:
        return _join(arguments.join, arguments.corpus)
    if arguments.show:
        return _show(arguments.show)
    part, parts = arguments.shard
    folder = arguments.folder / f"{part}-of-{parts}"
    limits = Limits(arguments.seconds, arguments.inputs)
    workers = Workers(folder, arguments.corpus, f"{part}/{parts}", arguments.jobs, limits)
    fatal = workers.wait()
    found = violations(folder)
    for line in fatal:
        sys.stdout.write(f"{line}\n")
    for path, text in found:
        sys.stdout.write(f"{path}: {text}to keep it as a test: {corpus.CRASHES}/NAME.bin\n\n")
    return 1 if found or fatal else 0


def _join(folders: Sequence[Path], into: Path) -> int:
    """Those inputs of the folders, and of `into`, that are needed to reach all that they reach, become `into`."""
    inputs = [data for folder in folders for data in corpus.read(folder / "corpus")]
    kept = corpus.minimized(Runner(), [*(script.dumps() for script in SEEDS), *corpus.read(into), *inputs])
    for path in into.glob("*.bin"):
        path.unlink()
    for data in kept:
        corpus.write(into, data)
    sys.stdout.write(f"{into}: {len(kept)} inputs of {sum(map(len, kept))} bytes, of {len(inputs)} that were found\n")
    return 0


def _show(paths: Sequence[Path]) -> int:
    """Inputs as scripts, and what they violate."""
    runner, bad = Runner(), 0
    for path in paths:
        script = loads(path.read_bytes())
        outcome = runner.run(script)
        bad += outcome.violation is not None
        sys.stdout.write(
            f"{path}: {outcome.violation or 'holds'}, {len(outcome.reached)} edges and answers\n{script}\n\n"
        )
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulator_tests.fuzz", description=__doc__)
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="K/N", help="the K-th of N parts: other inputs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that fuzz at once")
    parser.add_argument("--seconds", type=float, help="end after so long; without a limit Ctrl-C ends it")
    parser.add_argument("--inputs", type=int, help="end after so many inputs of all processes")
    parser.add_argument("--folder", type=Path, default=Path("out/fuzz"), help="what a run keeps, to go on with")
    parser.add_argument(
        "--join", type=Path, nargs="+", metavar="FOLDER", help="put what these parts keep into the corpus"
    )
    parser.add_argument("--corpus", type=Path, default=corpus.FOLDER, help="what a run begins with, and --join makes")
    parser.add_argument("--show", type=Path, nargs="+", metavar="FILE", help="say what inputs mean and violate")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
