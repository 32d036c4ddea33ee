"""Hooks that share a callback: each is called at its address, and behind a flag only while that is set."""

from __future__ import annotations

import ctypes

import pytest

from emulator_tests.machine.test_code_filter import BASE, Plain
from mh_emulator.cpu import code_hooks
from mh_emulator.cpu.code_hooks import CodeHooks

ADDRESSES = [BASE + 3, BASE + 17, BASE + 18]
COUNT = 32


def run(engine: Plain) -> None:
    engine.uc.emu_start(BASE, BASE + COUNT)


def test_each_address_is_noticed_once() -> None:
    engine, seen = Plain(), list[int]()
    hooks = CodeHooks(engine, seen.append)  # type: ignore[arg-type]
    for address in ADDRESSES:
        hooks.add(address)
    run(engine)
    assert seen == ADDRESSES
    assert len(hooks) == len(ADDRESSES)
    engine.uc.ctl_flush_tb()
    hooks.forget()
    run(engine)
    assert (len(hooks), seen) == (0, ADDRESSES)


@pytest.mark.parametrize("is_native", [True, False])
def test_behind_a_flag(monkeypatch: pytest.MonkeyPatch, is_native: bool) -> None:
    """Code is translated once: what counts is the flag when an instruction is executed. Python is told always."""
    if not is_native:
        monkeypatch.setattr(code_hooks, "_native_gate", lambda: None)
    engine, seen, flag = Plain(), list[int](), ctypes.c_uint64()
    hooks = CodeHooks(engine, seen.append, flag)  # type: ignore[arg-type]
    for address in ADDRESSES:
        hooks.add(address)
    run(engine)
    assert seen == ([] if is_native else ADDRESSES)
    seen.clear()
    flag.value = 1
    run(engine)
    assert seen == ADDRESSES
    seen.clear()
    flag.value = 0
    run(engine)
    assert seen == ([] if is_native else ADDRESSES)
