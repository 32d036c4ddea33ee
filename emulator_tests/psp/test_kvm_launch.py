"""LAUNCH_UPDATE_DATA through KVM: a command of the firmware for each page that the range is in."""

from __future__ import annotations

import errno
import hashlib
import random

import pytest

from emulator_tests.machine.guests import fails, machine
from emulator_tests.psp.rig import PAGE
from mh_builder.parts import PARTS
from mh_emulator.kvm import KvmError, Vm
from mh_emulator.platform import Platform
from mh_emulator.psp.command import Command
from mh_emulator.psp.crypto import NONCE_BYTES
from mh_emulator.psp.status import Status

DATA = random.Random(1).randbytes(4 * PAGE)
RANGES = [(0, 4 * PAGE), (PAGE, 2 * PAGE), (16, 32), (PAGE - 16, 32), (PAGE - 32, 2 * PAGE + 48), (2 * PAGE, 16)]


def launching(platform: Platform) -> tuple[Vm, list[tuple[Command, Status]]]:
    vm = platform.create_vm()
    vm.sev_init()
    vm.sev_launch_start(0)
    calls: list[tuple[Command, Status]] = []
    platform.psp.watchers.append(lambda command, status: calls.append((command, status)))
    return vm, calls


@pytest.mark.parametrize("part", ["milan", "rome"])
@pytest.mark.parametrize(("offset", "size"), RANGES)
def test_all_of_a_range_is_measured_and_encrypted(part: str, offset: int, size: int) -> None:
    platform = Platform(PARTS[part], 1 << 24, 1)
    memory = platform.memory(4 * PAGE)
    memory.write_raw(0, DATA)
    vm, calls = launching(platform)
    vm.sev_launch_update_data(memory, offset, size)
    pages = (offset + size - 1) // PAGE - offset // PAGE + 1
    assert calls == [(Command.LAUNCH_UPDATE_DATA, Status.SUCCESS)] * pages
    vm.sev_launch_measure()
    report = platform.psp.attestation(vm.handle, bytes(NONCE_BYTES))
    assert report[NONCE_BYTES:].startswith(hashlib.sha256(DATA[offset : offset + size]).digest())
    for at in range(0, 4 * PAGE, 16):
        is_launched = offset <= at < offset + size
        block = platform.dram.read_private(vm.asid, memory.spa(at), 16)
        assert (block == DATA[at : at + 16]) == is_launched, hex(at)
        assert (memory.read_raw(at, 16) == DATA[at : at + 16]) != is_launched, hex(at)


def test_pages_are_refused_together() -> None:
    platform = machine()
    memory = platform.memory(4 * PAGE)
    memory.write_raw(0, DATA)
    vm, calls = launching(platform)
    vm.sev_launch_measure()
    calls.clear()
    with fails(errno.EIO, "KVM_SEV_LAUNCH_UPDATE_DATA"):
        vm.sev_launch_update_data(memory, 0, 4 * PAGE)
    assert calls == [(Command.LAUNCH_UPDATE_DATA, Status.INVALID_GUEST_STATE)]
    assert memory.read_raw(0, 4 * PAGE) == DATA


def test_a_range_beyond_the_mapping_is_refused() -> None:
    platform = machine()
    vm, calls = launching(platform)
    with pytest.raises(KvmError, match="ENOMEM"):
        vm.sev_launch_update_data(platform.memory(4 * PAGE), PAGE, 4 * PAGE)
    assert not calls
