"""State as JSON: named tuples of numbers, bytes and more of these; what is read has to be of the very kind expected."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mh_emulator.snapshot.errors import SnapshotError

T = TypeVar("T")

NUMBER_BITS = 64
"""Of every number; it is not negative."""

_NAMES = {
    int: "a number",
    bool: "a truth value",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
}


def encode(value: object) -> object:
    """What `json` takes of it."""
    if hasattr(value, "_asdict"):
        return {name: encode(field) for name, field in value._asdict().items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {f"{key:#x}": encode(field) for key, field in sorted(value.items())}
    if isinstance(value, tuple):
        return [encode(field) for field in value]
    return value


def decode(kind: type[T], value: object, where: str) -> T:
    """The state of that kind; `where` names it in a `SnapshotError`."""
    found: T = _decode(kind, value, where)
    return found


def _decode(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401 - kinds are hints, which have no type
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        (inner,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
        return None if value is None else _decode(inner, value, where)
    if origin is tuple:
        inner, _ = typing.get_args(kind)
        return tuple(_decode(inner, one, f"{where}[{n}]") for n, one in enumerate(_of(list, value, where)))
    if origin is dict:
        _, inner = typing.get_args(kind)
        return {
            _key(key, where): _decode(inner, one, f"{where}[{key}]") for key, one in _of(dict, value, where).items()
        }
    if hasattr(kind, "_fields"):
        return _named(kind, _of(dict, value, where), where)
    return _plain(kind, value, where)


def _plain(kind: Any, value: object, where: str) -> object:  # noqa: ANN401
    if kind is bytes:
        return _parsed(bytes.fromhex, _of(str, value, where), where, "bytes in hexadecimal")
    found = _of(kind, value, where)
    if kind is int and not 0 <= found < 1 << NUMBER_BITS:
        raise SnapshotError(f"{where} is {found:#x}, not of {NUMBER_BITS} bits")
    return found


def _named(kind: Any, value: dict[str, object], where: str) -> object:  # noqa: ANN401
    hints = typing.get_type_hints(kind)
    if value.keys() != hints.keys():
        raise SnapshotError(f"{where} has {_list(value)}, not {_list(hints)}")
    return kind(**{name: _decode(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _of(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401
    # A truth value is a number to Python.
    if type(value) is not kind:
        raise SnapshotError(f"{where} is {_NAMES.get(type(value), 'a fraction')}, not {_NAMES[kind]}")
    return value


def _key(text: str, where: str) -> int:
    found: int = _parsed(lambda digits: int(digits, 16), text, f"a key of {where}", "a hexadecimal number")
    return _plain_number(found, f"a key of {where}")


def _plain_number(value: int, where: str) -> int:
    found = _plain(int, value, where)
    assert isinstance(found, int)  # noqa: S101
    return found


def _parsed(parse: Callable[[str], Any], text: str, where: str, what: str) -> Any:  # noqa: ANN401
    try:
        return parse(text)
    except ValueError:
        raise SnapshotError(f"{where} is {text[:32]!r}, not {what}") from None


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "nothing"
