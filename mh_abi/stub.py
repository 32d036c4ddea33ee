"""What `abi` has, for type checkers: `python -m mh_abi.stub` writes `abi.pyi` from the header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mh_abi import abi

STUB = Path(__file__).with_name("abi.pyi")

_HEAD = '''\
"""Generated from payload/abi.h by `python -m mh_abi.stub`."""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

class Type(Protocol):
    def __len__(self) -> int: ...

class Field(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def type(self) -> Type: ...

class _Kind(type):
    fields: Mapping[str, Field]
    def __len__(cls) -> int: ...

class Structure(metaclass=_Kind):
    def __len__(self) -> int: ...
    def dumps(self) -> bytes: ...

HEADER: Final[Path]
HEADERS: Final[tuple[Path, ...]]

def constants() -> dict[str, int | str]: ...
def enums() -> dict[str, type[IntEnum]]: ...
def enumerators() -> dict[str, int]: ...
def structures() -> dict[str, type[Structure]]: ...
def assembler_symbols() -> dict[str, int | str]: ...
'''

_SCALARS = {"char": "bytes", "uint8": "int", "uint16": "int", "uint32": "int", "uint64": "int"}


def stub() -> str:
    """The text of the stub."""
    lines = [_HEAD]
    lines += [f"{name}: Final = {_literal(value)}" for name, value in abi.constants().items()]
    for name, kind in abi.enums().items():
        lines += ["", f"class {name}(IntEnum):"]
        lines += [f"    {member.name} = {member.value}" for member in kind]
    for name, structure in abi.structures().items():
        lines += ["", *_structure(name, structure)]
    return "\n".join([*lines, ""])


def _literal(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _structure(name: str, kind: Any) -> Iterator[str]:  # noqa: ANN401 - dissect.cstruct says nothing of its types
    types = {field: _type(kind.fields[field].type) for field in kind.fields}
    yield f"class {name}(Structure):"
    yield from (f"    {field}: {type_}" for field, type_ in types.items())
    keywords = ", ".join(f"{field}: {type_} = ..." for field, type_ in types.items())
    yield f"    def __init__(self, data: bytes = ..., /, *, {keywords}) -> None: ..."


def _type(kind: Any) -> str:  # noqa: ANN401 - dissect.cstruct says nothing of its types
    """How a field's value reads in Python."""
    name = str(kind.__name__)
    if "[" in name:
        element = name[: name.index("[")]
        return "bytes" if element == "char" else f"list[{_SCALARS.get(element, element)}]"
    return _SCALARS.get(name, name)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
