"""INS and OUTS of an SEV-ES guest, which moves what it sends and gets through scratch memory that it shares.

Source: GHCB specification (AMD 56421), section 4.1.2 (IOIO_PROT); Linux, arch/x86/kvm/svm/sev.c (sev_es_string_io,
setup_vmgexit_scratch).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from mh_emulator.cpu.devices import Devices
from mh_emulator.cpu.intercepts import Intercept
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import pieces
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.ghcb import Ghcb

_SCRATCH_LIMIT = 16 << 10
"""Bytes; KVM copies no more (GHCB_SCRATCH_AREA_LIMIT)."""


def serve(ghcb: Ghcb, stop: Intercept, dram: Dram, spa: Callable[[int], int | None], devices: Devices) -> None:
    """Have devices answer for each element; raise `MalformedError`, or `KvmError` for scratch that KVM refuses."""
    count = ghcb.read("exit_info_2")
    size = count * stop.size
    gpa = ghcb.scratch(size)
    if not size or size > _SCRATCH_LIMIT:
        raise KvmError(errno.EINVAL, "KVM_RUN")
    places = [_place(spa(start), length) for start, length in pieces(gpa, size)]
    if stop.is_write:
        data = b"".join(dram.read_raw(start, length) for start, length in places)
        for at in range(0, size, stop.size):
            devices.write_port(stop.port, stop.size, int.from_bytes(data[at : at + stop.size], "little"))
    else:
        data = b"".join(devices.read_port(stop.port, stop.size).to_bytes(stop.size, "little") for _ in range(count))
        for start, length in places:
            dram.write_raw(start, data[:length])
            data = data[length:]
    ghcb.done()


def _place(spa: int | None, length: int) -> tuple[int, int]:
    if spa is None:
        raise KvmError(errno.EFAULT, "KVM_RUN")
    return spa, length
