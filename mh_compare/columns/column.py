"""What a column is, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mh_compare.outcome import Verdict
from mh_compare.subject import Subject

AnySubject_contra = TypeVar("AnySubject_contra", bound=Subject, contravariant=True)


@dataclass(frozen=True, slots=True)
class Value:
    """An answer for people, and for programs where it is a number."""

    text: str
    number: float | None = None
    detail: str = ""
    """What else was seen."""


def not_applicable(why: str) -> Value:
    """The answer where nothing is there that a column could be about; `why` says so in words."""
    return Value(Verdict.ABSENT.value, detail=why)


@dataclass(frozen=True, slots=True)
class Column(Generic[AnySubject_contra]):
    """A question that has an answer for every layout."""

    name: str
    """What users type."""
    title: str
    """What is asked."""
    unit: str
    """Of the answer's number; empty where the answer is none."""
    measure: Callable[[AnySubject_contra], Value]
    """Of a scheme with a mirror; `snp_columns` has what is another thing without one."""
    how: str = ""
    """Another command that shows it, with {scheme}, {part} and {flags}; empty: only `compare` does."""
