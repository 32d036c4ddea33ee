"""The faults themselves, where they enter, and a run over a few that is not blind."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from emulator_tests.coverage.blobs import RECORDED, Instruction, blob, linked
from emulator_tests.helper.rings import image_of
from emulator_tests.mutation.mutants import KINDS, Mutant, mutants
from emulator_tests.mutation.order import order
from emulator_tests.mutation.plant import planted
from emulator_tests.mutation.record import Run, Seen
from emulator_tests.mutation.results import Result, Results, is_good, read, summary
from mh_abi.image import HelperImage
from mh_builder.image.model import Image
from mh_emulator.host.machine import Machine
from mh_emulator.host.snp_machine import SnpMachine

SECRETS = "emulator_tests/helper/test_launch_secret.py"


@pytest.mark.parametrize(
    ("kind", "code", "becomes"),
    [
        ("inverted", "7405", "7505"),
        ("inverted", "0f8201000000", "0f8301000000"),
        ("dropped", "0f8201000000", "909090909090"),
        ("dropped", "85c0", "9090"),
        ("one more", "83f8ff", "83f800"),
        ("one more", "66817c2402fe00", None),
        ("one less", "813c2400010000", "813c24ff000000"),
        ("unlocked", "f0480fb13a", "90480fb13a"),
    ],
)
def test_kinds(kind: str, code: str, becomes: str | None) -> None:
    """JE, JB, TEST, CMP with an immediate of 1, 2 and 4 bytes, LOCK CMPXCHG."""
    expected = bytes.fromhex(becomes or "66817c2402ff00")
    assert KINDS[kind](bytes.fromhex(code)) == expected


def test_each_instruction_of_its_kind_has_its_mutants() -> None:
    """Each conditional jump twice, and each lock but that of XCHG, which locks without it.

    Those of the wide kernels and the stubs run elsewhere.
    """
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for one in mutants(RECORDED):
        found[one.place, one.count].add(one.kind)
    jumps = {
        one.key for name in RECORDED for one in blob(name).instructions if one.target is not None and one.key in found
    }
    assert len(jumps) > 400
    assert all(found[key] == {"inverted", "dropped"} for key in jumps)
    locks = {one.source for one in mutants(RECORDED) if one.kind == "unlocked"}
    assert locks == {"payload/bitmap.s", "payload/ending.s", "payload/totals.s"}


@pytest.mark.parametrize("name", ["helper", "loader"])
def test_a_fault_is_in_what_is_linked_and_nowhere_else(name: str) -> None:
    one = next(one for one in blob(name).instructions if (one.target or 0) > one.offset)
    with planted(Mutant(one.place, one.count, "inverted")):
        broken = linked(name)
    differing = [at for at, (old, new) in enumerate(zip(blob(name).text, broken.text, strict=True)) if old != new]
    assert len(differing) == 1
    assert differing[0] in range(one.offset, one.offset + one.size)
    assert linked(name).text == blob(name).text


def test_no_test_holds_an_image_that_was_built_when_it_was_collected() -> None:
    """It would be one without the fault."""
    folders = ("attest", "crypto", "firmware", "helper", "igvm", "reference", "vmpl")
    names = [
        f"emulator_tests.{folder}.{path.stem}"
        for folder in folders
        for path in sorted((ROOT / "emulator_tests" / folder).glob("*.py"))
    ]
    held = {
        f"{name}.{what}"
        for name in names
        for what, value in vars(importlib.import_module(name)).items()
        if isinstance(value, Image | HelperImage | SnpMachine | Machine)
    }
    assert len(names) > 100
    assert held == set()


def test_what_tests_keep_is_built_anew_with_the_fault() -> None:
    one = next(one for one in blob("helper").instructions if (one.target or 0) > one.offset)
    kept = image_of(1)
    with planted(Mutant(one.place, one.count, "inverted")):
        assert image_of(1).data != kept.data
    assert image_of(1).data == kept.data


def first(name: str) -> Instruction:
    return blob(name).instructions[0]


def run_of(seconds: float, ran: int, blob: str = "helper", taken: int = 0) -> Run:
    return Run(seconds, {blob: Seen(ran, ran & ~taken, taken)})


def test_order_of_tests() -> None:
    """Every test before its second case, cheapest first; what has noticed faults before all."""
    one = first("helper")
    tests = {
        "a.py::slow": run_of(2.0, 1),
        "a.py::cases[1]": run_of(0.2, 1),
        "a.py::cases[0]": run_of(0.1, 3),
        "a.py::elsewhere": run_of(0.1, 1, "loader"),
        "a.py::other": run_of(0.1, 2),
        "b.py::slowest": run_of(9.0, 1),
    }
    expected = ["a.py::cases[0]", "a.py::slow", "b.py::slowest", "a.py::cases[1]"]
    mutant = Mutant(*one.key, "dropped")
    assert order(tests, mutant) == expected
    noticed = {"a.py::slow": 2, "a.py::elsewhere": 3, "a.py::cases[1]": 1}
    assert order(tests, mutant, noticed) == ["a.py::cases[1]", "a.py::slow", "a.py::cases[0]", "b.py::slowest"]


def test_cases_of_what_noticed_faults_come_before_others() -> None:
    mutant = Mutant(*first("helper").key, "dropped")
    cheap = {f"a.py::cheap{number}": run_of(0.1, 1) for number in range(9)}
    cases = {f"a.py::one[{case}]": run_of(case + 1.0, 1) for case in range(9)}
    ordered = order(cheap | cases, mutant, {"a.py::one[3]": 1})
    assert ordered[0] == "a.py::one[3]"
    assert ordered[7:12] == [f"a.py::one[{case}]" for case in (0, 1, 2, 4, 5)]
    assert ordered[1:7] + ordered[12:15] == order(cheap | cases, mutant)[:9] == sorted(cheap)


def test_what_runs_rare_code_near_the_fault_comes_before_others() -> None:
    """The ninth instruction is near, the hundredth is not."""
    mutant = Mutant(*first("helper").key, "dropped")
    cheap = {f"a.py::cheap{number}": run_of(0.1, 1) for number in range(9)}
    rare = {"a.py::far": run_of(1.0, 1 | 1 << 99), "a.py::near": run_of(1.0, 1 | 1 << 8)}
    ordered = order(cheap | rare, mutant)
    assert (ordered[0], ordered[-1]) == ("a.py::near", "a.py::far")


def test_a_jump_that_is_dropped_is_a_matter_of_tests_that_take_it() -> None:
    """What does rare things at the fault's own jump comes before what does them near it."""
    instructions = blob("helper").instructions
    number = next(number for number, one in enumerate(instructions) if one.target is not None and number > 20)
    jump, place = 1 << number, instructions[number].key
    tests = {
        "a.py::falls": run_of(0.1, jump),
        "a.py::near": run_of(0.1, jump | jump >> 1),
        "a.py::takes": run_of(1.0, jump, taken=jump),
    }
    assert order(tests, Mutant(*place, "dropped")) == ["a.py::takes"]
    assert order(tests, Mutant(*place, "inverted")) == ["a.py::takes", "a.py::near", "a.py::falls"]


def test_reasons_are_of_the_line_or_of_the_use_of_a_macro() -> None:
    """One line may have them for several kinds."""
    reasons = {(one.line, one.kind): one.equivalent for one in mutants(RECORDED) if one.equivalent}
    assert reasons["payload/secret.s:37", "dropped"] == "4 GiB further is beyond the table too"
    assert ("payload/secret.s:37", "inverted") not in reasons


def test_results_are_kept_and_joined(tmp_path: Path) -> None:
    """What lives runs again, what was noticed does not; what has not run is said."""
    one, two, three = mutants(RECORDED)[:3]
    results = Results(tmp_path / "results-1-of-2.jsonl", 2)
    results.add(Result(one, "is noticed", "a.py::test"))
    results.add(Result(two, "lives", "all 7 tests"))
    again = Results(tmp_path / "results-1-of-2.jsonl", 2)
    assert list(again.found) == [one]
    again.add(Result(two, "lives", "all 7 tests"))
    found = read(tmp_path / "results-1-of-2.jsonl")
    assert list(summary(found, [one, two, three])) == [
        f"{two}: lives after all 7 tests",
        f"{three}: has not run",
        "1 of 3 mutants are noticed, 1 have not run, 1 live",
    ]
    assert not is_good(found, [one, two])
    assert is_good(found, [one])
    again.withdraw("a.py::test")
    assert not is_good(list(again.found.values()), [one])


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the record of a few tests: what a helper makes of its owner's record."""
    folder = tmp_path_factory.mktemp("mutation")
    plugin = ["-p", "emulator_tests.mutation.record", f"--mutation-folder={folder}"]
    done = run("pytest", "-q", "-n", "0", *plugin, SECRETS, "-k", "another or page_at_most")
    assert done.returncode == 0, done.stdout
    return str(folder)


def test_what_the_tests_of_the_secret_notice(recorded: str) -> None:
    """The bound of its table, which the suite once missed; that START waits for other rings they do not reach."""
    only = ["--only", "payload/secret.s:25", "payload/session.s:50"]
    done = run("emulator_tests.mutation", "--folder", recorded, "--jobs", "1", *only)
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "payload/session.s:50: dropped: jne .Lrefused: is not reached"
    assert lines[1:] == ["3 of 4 mutants are noticed, 1 are not reached"]
    assert done.returncode == 1


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_is_none(shard: str) -> None:
    done = run("emulator_tests.mutation", "--shard", shard)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"'{shard}' is not K/N with K from 1 to N")


def test_without_a_record_nothing_runs(tmp_path: Path) -> None:
    done = run("emulator_tests.mutation", "--folder", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (
        2,
        f"{tmp_path / 'none' / 'record.json'}: no record: `make mutate` makes it\n",
    )
