"""All that can be done with an IGVM file; what is wrong with it, each says in one line."""

from __future__ import annotations

from collections.abc import Callable

from mh_builder.firmware.digests import Mode
from mh_builder.igvm.announced import announced
from mh_builder.igvm.facts import facts_of_igvm
from mh_builder.igvm.firmware import flash_of, memory_of, with_flash
from mh_builder.igvm.insert import with_pages
from mh_builder.igvm.launch import launch_digest, wrong_id_block
from mh_builder.igvm.listing import listing, mask_names
from mh_builder.igvm.read import read_igvm


def uses(data: bytes) -> list[Callable[[], object]]:
    """Read a file. Raises `FirmwareError`; so may each of what is left to do."""
    igvm = read_igvm(data)
    return [
        lambda: [mask_names(igvm, line.mask) for line in listing(igvm)],
        lambda: flash_of(with_flash(igvm, bytes(len(flash_of(igvm))))),
        lambda: wrong_id_block(igvm),
        lambda: facts_of_igvm(igvm),
        lambda: announced(igvm),
        lambda: memory_of(with_pages(igvm, [(0x100_0000, b"n" * 4096)])),
        *(lambda mode=mode: launch_digest(igvm, mode) for mode in Mode),
    ]
