"""All that reads a flash image; what is wrong with it, each says in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from mh_builder.firmware.check import Answer, Subject, check
from mh_builder.firmware.digests import Digests, Mode
from mh_builder.firmware.facts import facts_of
from mh_builder.firmware.inject import extract, inject
from mh_builder.firmware.measure import FlashLaunch, Vcpus, launch_digest
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options

_VCPUS = Vcpus(2, 0x00A0_0F11)


@cache
def _blob() -> bytes:
    return build_helper("alias-gpa", Options()).data


def readers(flash: bytes) -> list[Callable[[], object]]:
    """Each may raise `FirmwareError`."""
    return [
        lambda: extract(flash),
        lambda: facts_of(flash, Digests()),
        lambda: inject(flash, _blob()),
        *(lambda mode=mode: launch_digest(flash, mode, _VCPUS) for mode in Mode),
        lambda: _checked(flash),
    ]


def _checked(flash: bytes) -> None:
    rows = check(Subject("flash image", flash, lambda: FlashLaunch(flash, _VCPUS), lambda: extract(flash)))
    assert not [row for row in rows if "\n" in row.reason]
    # What decides and cannot be told has a cause, which is a no.
    assert any(row.refuses for row in rows) or not [row for row in rows if row.decides and row.answer is Answer.UNKNOWN]
