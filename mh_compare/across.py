"""One attack across all kinds of guests: what becomes of it in plain SEV, under SEV-ES, and under SNP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mh_builder.schemes.space import Start
from mh_compare.outcome import Verdict
from mh_compare.results import AttackResult

_SNP, _SUCCEEDS = Start.SNP.value, Verdict.SUCCEEDS.value
_NOWHERE = "-"


@dataclass(frozen=True, slots=True)
class Across:
    """One attack, where it was carried out under SNP."""

    attack: str
    title: str
    said: dict[str, str]
    """Start -> outcome, with the schemes that end otherwise than most; a dash where it makes no sense."""
    snp: AttackResult
    was: frozenset[str]
    """All outcomes on guests that have a mirror."""

    @property
    def is_same(self) -> bool:
        """Whether it ends alike on all guests."""
        return self.was == {self.snp.outcome}

    @property
    def is_ended(self) -> bool:
        """Whether it succeeds somewhere, and under SNP no more."""
        return _SUCCEEDS in self.was and self.snp.outcome not in {_SUCCEEDS, Verdict.ABSENT.value}

    @property
    def remains(self) -> bool:
        """Whether it succeeds under SNP."""
        return self.snp.outcome == _SUCCEEDS

    @property
    def is_stopped_sooner(self) -> bool:
        """Whether it only made garbage, and is now refused or noticed."""
        stopped = {Verdict.REFUSED.value, Verdict.DETECTED.value}
        return self.was == {Verdict.HARMLESS.value} and self.snp.outcome in stopped


def starts(attacks: Sequence[AttackResult]) -> list[str]:
    """The kinds of guests that were tried, in their order."""
    found = {attack.start for attack in attacks}
    return [start.value for start in Start if start.value in found]


def by_family(attacks: Sequence[AttackResult]) -> Iterator[tuple[str, list[Across]]]:
    """Each family's attacks on SNP guests, in the order of the results."""
    tried = starts(attacks)
    for family, results in groupby(attacks, key=lambda result: result.family):
        by_attack = (list(found) for _, found in groupby(results, key=lambda result: result.attack))
        rows = [_across(found, tried) for found in by_attack if any(one.start == _SNP for one in found)]
        if rows:
            yield family, rows


def all_of(attacks: Sequence[AttackResult]) -> list[Across]:
    """Each attack on SNP guests, in the order of the results."""
    return [one for _, rows in by_family(attacks) for one in rows]


def _across(found: Sequence[AttackResult], tried: Sequence[str]) -> Across:
    said = {start: _words([one for one in found if one.start == start]) for start in tried}
    (snp,) = (one for one in found if one.start == _SNP)
    was = frozenset(one.outcome for one in found if one.start != _SNP)
    return Across(snp.attack, snp.title, said, snp, was)


def _words(found: Sequence[AttackResult]) -> str:
    """The outcome under most schemes; with it those that end otherwise."""
    if not found:
        return _NOWHERE
    most = Counter(one.outcome for one in found).most_common(1)[0][0]
    others = "".join(f"; {one.layout}: {one.outcome}" for one in found if one.outcome != most)
    return most + others
