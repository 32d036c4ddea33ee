"""Calls of C functions from an engine of unicorn, whose own interface makes a thunk for each."""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import unicorn
from unicorn import unicorn_const
from unicorn.unicorn_py3.unicorn import uclib

Foreign: TypeAlias = Any
"""An object of unicorn or capstone, which come without types."""

_unicorn: Foreign = unicorn
UnicornError: type[Exception] = _unicorn.UcError

EVERYWHERE = (1, 0)
"""Where a hook is for all addresses."""


def add_hook(uc: Foreign, kind: int, function: Foreign, data: Foreign, where: tuple[int, int]) -> int:
    """Have `uc` call a C function, which gets `data`, from one address to another; return what `remove_hook` takes.

    Raises `UnicornError`.
    """
    hook, (first, last) = ctypes.c_size_t(), map(ctypes.c_uint64, where)
    status = uclib.uc_hook_add(uc._uch, ctypes.byref(hook), kind, function, data, first, last)  # noqa: SLF001
    if status != unicorn_const.UC_ERR_OK:
        raise UnicornError(status)
    return hook.value


def remove_hook(uc: Foreign, hook: int) -> None:
    """Take one away; no translated code may be left. Unicorn asks for a translation of what it has hooked."""
    uclib.uc_hook_del(uc._uch, ctypes.c_size_t(hook))  # noqa: SLF001
