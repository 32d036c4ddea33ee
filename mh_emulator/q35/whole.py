"""Whether a helper lies in a guest's memory as it has to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mh_abi.image import HelperImage
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.machine import Machine
from mh_emulator.secret import Secret


def is_whole(read: Callable[[int], bytes], helper: HelperImage, expected: bytes, table: bytes = b"") -> bool:
    """Whether its private pages, which `read` gives by their offset, are the `expected` ones; what is not said is zero.

    The one for the secret begins that with `table`.
    """
    start = helper.descriptor.secret_offset
    page = start // PAGE_BYTES * PAGE_BYTES
    for offset in range(0, helper.ring_offset, PAGE_BYTES):
        found = read(offset)
        if offset == page:
            if found[start - page :][: len(table)] != table:
                return False
        elif found != expected[offset : offset + PAGE_BYTES].ljust(PAGE_BYTES, b"\0"):
            return False
    return True


def has_whole(machine: Machine, expected: bytes, secret: Secret) -> bool:
    """Whether the private pages of a machine's helper are the `expected` ones, with its owner's secret in its place."""
    return is_whole(partial(machine.read_helper, size=PAGE_BYTES), machine.helper, expected, secret.table())
