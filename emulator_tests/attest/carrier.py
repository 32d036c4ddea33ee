"""A hostile kernel between a guest and the secure processor."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mh_builder.paging import PAGE_BYTES
from mh_emulator.kvm import SnpVm

Change = Callable[[bytes, bytes], bytes]
"""Of a request and its answer, the page that the guest sees."""


def carried(monkeypatch: pytest.MonkeyPatch, vm: SnpVm, change: Change) -> None:
    """Have the kernel show the guest something else than the answer."""
    right = vm.request

    def request(message: bytes) -> tuple[int, bytes]:
        status, answer = right(message)
        return status, change(message, answer).ljust(PAGE_BYTES, b"\0")

    monkeypatch.setattr(vm, "request", request)


def flipped(place: int) -> Change:
    """The answer with one bit changed."""
    return lambda _, answer: answer[:place] + bytes([answer[place] ^ 1]) + answer[place + 1 :]
