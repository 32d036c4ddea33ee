"""Python's view of `abi.h`: constants as attributes, structures as classes.

`abi.MH_PAGE_BYTES` is a constant, `abi.mh_packet(data)` parses, `abi.mh_packet(magic=...).dumps()`
writes. `assembler_symbols()` gives the same facts to the assembler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dissect.cstruct import cstruct
from dissect.cstruct.exceptions import ResolveError

from mh_abi.sources import PAYLOAD

HEADER = PAYLOAD / "abi.h"
HEADERS = (HEADER, *(PAYLOAD / f"{name}.h" for name in ("attest", "firmware", "landing", "protocol")))
"""The ABI: the header, and what it includes, in this order."""

_INCLUDE = re.compile(r'^#include "\w+\.h"$', re.MULTILINE)
_STRING = re.compile(r'^#define (MH_\w+) "([^"]*)"', re.MULTILINE)


def _parse(text: str) -> cstruct:
    """dissect.cstruct evaluates strings as expressions, where a GUID with a leading zero is a bad octal number."""
    definitions = cstruct(endian="<")
    definitions.load(_INCLUDE.sub("", _STRING.sub("", text)))
    definitions.consts |= dict(_STRING.findall(text))
    return definitions


_definitions = _parse("".join(header.read_text(encoding="ascii") for header in HEADERS))


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a constant, an enum or a structure class
    try:
        value = _definitions.consts[name] if name in _definitions.consts else _definitions.resolve(name)
    except ResolveError as error:
        raise AttributeError(f"abi.h defines no {name!r}") from error
    # So that the next look-up does not come here.
    globals()[name] = value
    return value


def constants() -> dict[str, int | str]:
    """Every constant of the header: name -> value."""
    return {name: value for name, value in _definitions.consts.items() if name.startswith("MH_") and value != ""}


def enums() -> dict[str, Any]:
    """Every enum of the header: name -> class."""
    return {name: kind for name, kind in _kinds() if hasattr(kind, "__members__")}


def structures() -> dict[str, Any]:
    """Every structure of the header: name -> class."""
    return {name: kind for name, kind in _kinds() if not hasattr(kind, "__members__")}


def _kinds() -> Iterator[tuple[str, Any]]:
    for name in _definitions.typedefs:
        if name.startswith("mh_"):
            yield name, __getattr__(name)


def enumerators() -> dict[str, int]:
    """Every enumerator of the header: name -> value."""
    return {member.name: int(member) for kind in enums().values() for member in kind}


def assembler_symbols() -> dict[str, int | str]:
    """All facts as assembler symbols.

    Constants and enumerators keep their names; `mh_packet.tag` is a field's offset in bytes,
    `sizeof.mh_packet` a structure's size in bytes; string constants are strings.
    """
    symbols = constants() | enumerators()
    for name, kind in structures().items():
        symbols[f"sizeof.{name}"] = len(kind)
        symbols |= {f"{name}.{field}": value.offset for field, value in kind.fields.items()}
    return symbols
