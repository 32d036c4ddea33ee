"""Guests that ask for nonsense: KVM answers, refuses or stops, and the host's own pages stay its own."""

from __future__ import annotations

import random
import struct

import pytest

from emulator_tests.machine.guests import HEAP, PAGE
from emulator_tests.snp.machine import GHCB, REGISTER_GHCB, SnpGuest, call, msr, rmpadjust
from mh_builder.save_area import OFFSETS
from mh_emulator.cpu import vmsa
from mh_emulator.kvm import KvmError
from mh_emulator.kvm.exits import Exit, Reason

ROUNDS = 12
EVENTS = (0x8000_0010, 0x8000_0011, 0x8000_0012, 0x8000_0013, 0x8000_0018, 0x7B, 0x72)


def settle(guest: SnpGuest, limit: int = 200) -> Exit | KvmError:
    """Run until the guest halts or cannot go on; the host changes pages as it is told, where they are any."""
    vcpu = guest.vm.vcpu(0)
    assert vcpu is not None
    for _ in range(limit):
        try:
            stop = vcpu.run(2000)
        except KvmError as error:
            return error
        if stop.reason is Reason.HYPERCALL:
            gpa, pages, attributes = stop.arguments
            try:
                guest.vm.set_memory_attributes(gpa, pages * PAGE, private=bool(attributes & 1 << 4))
            except KvmError:
                vcpu.answer(22)
            continue
        if stop.reason not in (Reason.IO, Reason.MSR):
            return stop
    raise AssertionError("the guest does not come to an end")


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_requests_of_nonsense(seed: int) -> None:
    rng = random.Random(seed)
    wide = (0, 1, PAGE, GHCB, GHCB + 0x800, HEAP, 1 << 32 | 1, (1 << 64) - 1, rng.getrandbits(64))
    values = [rng.choice(wide) for _ in range(4)]
    code = call(rng.choice(EVENTS), values[0], values[1], rax=values[2], scratch=rng.choice((GHCB + 0x800, values[3])))
    guest = SnpGuest(vcpus=2)
    guest.launch(REGISTER_GHCB + code + msr(rng.getrandbits(52) << 12 | 0x14) + "hlt")
    header = rng.choice((0, 5, 300)), rng.choice((0, 3, 252, 253, 0xFFFF))
    guest.memory.write_raw(GHCB + 0x800, struct.pack("<HH4x", *header))
    guest.memory.write_raw(GHCB + 0x808, rng.randbytes(2024))
    ended = settle(guest)
    assert isinstance(ended, KvmError) or ended.reason in (Reason.HLT, Reason.INTERNAL_ERROR, Reason.MEMORY_FAULT)
    owners = {entry.asid for entry in guest.platform.rmp._entries.values() if entry.assigned}
    assert owners <= {0, guest.vm.asid}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_vmsas_of_nonsense(seed: int) -> None:
    rng = random.Random(seed)
    guest = SnpGuest(vcpus=1)
    page = bytearray(vmsa.make(guest.registers(), fpu=True, features=1))
    names = [name for name in OFFSETS if name not in ("sev_features", "vmpl")]
    for name in rng.sample(names, 3):
        struct.pack_into("<Q", page, OFFSETS[name], rng.choice((0, 1, (1 << 64) - 1, rng.getrandbits(64))))
    guest.contents[HEAP + PAGE] = bytes(page)
    create = call(0x8000_0013, 1, HEAP + PAGE, rax=1)
    guest.launch(f"{rmpadjust(HEAP + PAGE, 1, 0, vmsa=1)} {REGISTER_GHCB} {create} hlt")
    settle(guest)
