"""A function of the project that answers wrongly."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_NAME = "__spoiled__"


class Function(NamedTuple):
    """Where it is defined."""

    module: str
    qualname: str


class Unspoilable(Exception):
    """There is no wrong answer of its kind, or no way to give it."""


@contextmanager
def spoiled(function: Function, told: Path) -> Iterator[None]:
    """What it returns is wrong, what it raises is lost, and what it should do without an answer is not done.

    The file `told` is there as soon as that has happened.
    """
    try:
        found = _found(function)
    except Unspoilable:
        yield
        return
    kept = FunctionType(found.__code__, found.__globals__, found.__name__, found.__defaults__)
    kept.__kwdefaults__ = found.__kwdefaults__

    def answer(*arguments: Any, **named: Any) -> Any:
        value = None if found.__annotations__.get("return") in {None, "None"} else _value(kept, arguments, named)
        try:
            other = wrong(value)
        except Unspoilable:
            return value
        told.touch()
        return other

    found.__globals__[_NAME] = answer
    found.__code__ = _CODE
    yield


def _value(function: FunctionType, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return function(*arguments, **named)
    except Exception:  # noqa: BLE001 - whatever it says is what has to be missed
        return None


def _stub(*arguments: Any, **named: Any) -> Any:
    return __spoiled__(*arguments, **named)  # type: ignore[name-defined]  # noqa: F821 - a global of the spoiled function's


_CODE: CodeType = _stub.__code__


def _found(function: Function) -> FunctionType:
    found: Any = importlib.import_module(function.module)
    for name in function.qualname.split("."):
        found = vars(found).get(name)
        for inner in ("__func__", "fget", "func", "__wrapped__"):
            found = getattr(found, inner, found) if not isinstance(found, FunctionType | type) else found
    if not isinstance(found, FunctionType) or found.__closure__ is not None:
        raise Unspoilable(f"{function.qualname} is no function that can be changed")
    return found


def wrong(value: Any) -> Any:
    """Another value of its kind. Raises `Unspoilable`."""
    for kind, other in _WRONG:
        if isinstance(value, kind):
            return other(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _other_fields(value)
    raise Unspoilable(f"a {type(value).__name__} has no wrong value")


def _other_fields(value: Any) -> Any:
    """Wrong in each field that can be."""
    other, changed = copy.copy(value), False
    for field in fields(value):
        with suppress(Unspoilable):
            object.__setattr__(other, field.name, wrong(getattr(value, field.name)))
            changed = True
    if not changed:
        raise Unspoilable(f"a {type(value).__name__} has no field with a wrong value")
    return other


def _other_member(value: Enum) -> Enum:
    members = list(type(value))
    return members[(members.index(value) + 1) % len(members)]


_WRONG: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (type(None), lambda value: value),
    (Enum, _other_member),
    (bool, lambda value: not value),
    (int | float, lambda value: value + 1),
    (bytes | bytearray, lambda value: bytes([value[0] ^ 1]) + value[1:] if value else b"\1"),
    (str, lambda value: value + "?"),
    (list, lambda value: [] if value else [None]),
    (tuple, lambda value: () if value else (None,)),
    (set | frozenset, lambda value: set() if value else {None}),
    (dict, lambda value: {} if value else {None: None}),
)
"""By kind, the first that fits; what answers nothing has done nothing."""
