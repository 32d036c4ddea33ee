"""The run: every column and every attack under every layout, on as many processes as are wanted."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from mh_builder.asm.encoder import shared
from mh_builder.parts import PARTS
from mh_builder.report.layout import Layout
from mh_builder.schemes import EVERY_SCHEME
from mh_builder.schemes.space import Start
from mh_compare import worker
from mh_compare.attacks import ATTACKS, FAMILIES, Attack
from mh_compare.attacks.attack import carried_out
from mh_compare.candidate import candidate
from mh_compare.columns import COLUMNS
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, Verdict
from mh_compare.results import AttackResult, Cell, Comparison
from mh_compare.snp_arena import SnpArena
from mh_compare.snp_attacks import AS_ELSEWHERE, UNDER_SNP
from mh_compare.snp_columns import UNDER_SNP as COLUMNS_UNDER_SNP
from mh_compare.subject import MirrorSubject, SnpSubject
from mh_compare.trace import tracing

DEFAULT_PART = "milan"


@dataclass(frozen=True, slots=True)
class Task:
    """One attack or one column, by name, under one layout."""

    name: str
    scheme: str
    part: str
    start: Start | None = None
    """Of an attack."""

    def run(self) -> AttackResult | Cell:
        """Do it."""
        with _collected():
            return _measure(self) if self.start is None else _attack(self, self.start)

    def how(self, option: str) -> str:
        """The command that does just this."""
        part = "" if self.part == DEFAULT_PART else f" --part {self.part}"
        start = "" if self.start is None else f" --start {self.start.value}"
        evidence = "" if self.start is None else " --evidence"
        return f"build.py compare --scheme {self.scheme}{part}{start} {option} {self.name}{evidence}"


def compare(tasks: Sequence[Task], results: Iterable[AttackResult | Cell]) -> Comparison:
    """What came of `tasks`, whose part is one."""
    found = list(results)
    return Comparison(
        part=tasks[0].part,
        layouts=tuple(dict.fromkeys(task.scheme for task in tasks)),
        cells=tuple(result for result in found if isinstance(result, Cell)),
        attacks=tuple(result for result in found if isinstance(result, AttackResult)),
    )


def tasks(
    names: Iterable[str], schemes: Sequence[str], part: str, starts: Sequence[Start] = tuple(Start)
) -> list[Task]:
    """Each of `names` under each of `schemes`; an attack under those of `starts` where it makes sense.

    A scheme has its own starts; columns are asked of all.
    """
    return [
        Task(name, scheme, part, start)
        for name in names
        for start in ([one for one in starts if one in ATTACKS[name].starts] if name in ATTACKS else [None])
        for scheme in schemes
        if start is None or start in EVERY_SCHEME[scheme].starts
    ]


@contextmanager
def results(tasks: Sequence[Task], jobs: int) -> Iterator[Iterator[AttackResult | Cell]]:
    """Do all `tasks` in `jobs` processes; what comes of them comes in their order.

    The processes are copies of this one, with all images built: no other thread may run yet.
    """
    if jobs == 1:
        yield map(Task.run, tasks)
        return
    _prepare(tasks)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), worker.prepare) as pool:
        try:
            yield pool.map(Task.run, tasks, chunksize=5)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare(tasks: Iterable[Task]) -> None:
    """Have all images built, and no worker of the assembler left, which serves one process."""
    for task in tasks:
        if task.start is None:
            subject(task.scheme, task.part)
        else:
            candidate(task.scheme, ATTACKS[task.name].part or task.part, task.start)
    shared.close()
    gc.freeze()


@contextmanager
def _collected() -> Iterator[None]:
    """Have nothing looked for that can be freed, and all of it freed at the end: the next guest takes its memory.

    A guest is a ring of references, and the collector's own times come when others have taken as much again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(1)
        if was_enabled:
            gc.enable()


def _arena(scheme: str, part: str, start: Start) -> MirrorArena | SnpArena:
    kind = SnpArena if start is Start.SNP else MirrorArena
    return kind(candidate(scheme, part, start))


@cache
def _ready_arena(scheme: str, part: str, start: Start) -> MirrorArena | SnpArena:
    """One for all gentle attacks, launched before the first of them."""
    arena = _arena(scheme, part, start)
    arena.connect()
    return arena


def _arena_for(attack: Attack, scheme: str, part: str, start: Start) -> MirrorArena | SnpArena:
    is_gentle = attack.is_gentle and (start is not Start.SNP or attack.name in AS_ELSEWHERE)
    return _ready_arena(scheme, part, start) if is_gentle else _arena(scheme, part, start)


def _carry_out(attack: Attack, arena: MirrorArena | SnpArena) -> Outcome:
    return carried_out(UNDER_SNP[attack.name], arena) if isinstance(arena, SnpArena) else attack.outcome(arena)


@cache
def subject(scheme: str, part: str) -> MirrorSubject | SnpSubject:
    """What columns are asked about."""
    if Start.SNP in EVERY_SCHEME[scheme].starts:
        return SnpSubject(scheme, PARTS[part], candidate(scheme, part, Start.SNP))
    return MirrorSubject(scheme, PARTS[part], candidate(scheme, part), candidate(scheme, part, Start.ES))


def layout(scheme: str, part: str) -> Layout:
    """What the page tables map of the image that `build.py build` makes."""
    return subject(scheme, part).layout


def _measure(task: Task) -> Cell:
    column, asked = COLUMNS[task.name], subject(task.scheme, task.part)
    value = COLUMNS_UNDER_SNP[column.name](asked) if isinstance(asked, SnpSubject) else column.measure(asked)
    return Cell(
        column=column.name,
        title=column.title,
        layout=task.scheme,
        value=value.text,
        number=value.number,
        unit=column.unit if value.number is not None else "",
        detail=value.detail,
        how=column.how.format(scheme=task.scheme, part=task.part, flags=asked.flags) or task.how("--column"),
    )


def _attack(task: Task, start: Start) -> AttackResult:
    attack = ATTACKS[task.name]
    part = attack.part or task.part
    arena = _arena_for(attack, task.scheme, part, start)
    with tracing() as trace:
        outcome = _carry_out(attack, arena)
    return AttackResult(
        attack=attack.name,
        family=next(family for family, attacks in FAMILIES.items() if attack in attacks),
        title=attack.title,
        layout=task.scheme,
        start=start.value,
        outcome=outcome.verdict.value,
        seen=outcome.seen,
        why=attack.why if outcome.verdict is Verdict.SUCCEEDS else "",
        how=task.how("--attack"),
        part=part,
        evidence=trace.lines,
    )
