"""A decision in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mh_compare.across import Across, all_of
from mh_compare.decision import Choice, Decision, Need
from mh_compare.outcome import Verdict
from mh_compare.results import Comparison

_MIRROR = "host-second-mirror"

HEADINGS = ("choose", "if you need")


def choices(decision: Decision) -> list[tuple[str, str]]:
    """(schemes, whom they are for), one for each choice."""
    return [(" or ".join(choice.layouts), _for_whom(choice)) for choice in decision.choices]


def matrix(decision: Decision) -> list[tuple[Need, tuple[str, ...]]]:
    """What was looked at, and `yes` or `no` for each layout."""
    return [(need, tuple("yes" if need in met else "no" for met in decision.met.values())) for need in decision.needs]


def impossible(decision: Decision) -> Iterator[str]:
    """What no scheme has together."""
    for some, others in decision.impossible:
        yield f"No scheme has {_any(some)} together with {_any(others)}."


def under_snp(result: Comparison) -> Iterator[str]:
    """Which scheme an SNP guest takes, and what it gains by that; nothing where no such guest was attacked."""
    if not result.snp:
        return
    found = all_of(result.attacks)
    refused = [one for one in found if one.attack == _MIRROR and one.snp.outcome == Verdict.REFUSED.value]
    why = f": a mirror of it is refused ({_MIRROR})" if refused else ""
    yield f"An SNP guest takes {_joined(sorted({one.layout for one in result.snp}), 'or')}{why}."
    if result.mirrors.attacks:
        ended, was = (sum(map(test, found)) for test in (_is_ended, _has_succeeded))
        yield f"Of {was} attacks that succeed on some guest with a mirror, SNP ends {ended}."


def _is_ended(one: Across) -> bool:
    return one.is_ended


def _has_succeeded(one: Across) -> bool:
    return "succeeds" in one.was


def _for_whom(choice: Choice) -> str:
    if not choice.needs and not choice.instead:
        return "any of it: all schemes meet the same"
    if not choice.needs:
        return f"nothing: {_joined(choice.instead, 'and')} {_verb(choice.instead)} all that it does, and more"
    differ = f"; they differ in {_joined(choice.differ, 'and')}" if choice.differ else ""
    sets = [_joined([need.text for need in needs], "together with") for needs in choice.needs]
    return "; or ".join(sets) + differ


def _verb(subjects: Sequence[str]) -> str:
    return "meets" if len(subjects) == 1 else "meet"


def _any(needs: Sequence[Need]) -> str:
    texts = [need.text for need in needs]
    return texts[0] if len(texts) == 1 else f"any of ({'; '.join(texts)})"


def _joined(words: Sequence[str], last: str) -> str:
    """`words` as a list in a sentence."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
