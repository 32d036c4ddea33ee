"""A vCPU that is stopped between reading what others share with it and writing it."""

from __future__ import annotations

from mh_abi import abi
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import Lane
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Reason

COMPARE_EXCHANGE = b"\xf0", b"\x0f\xb1"
"""LOCK, with a REX prefix behind it, and CMPXCHG."""


def stop_before_write(machine: Machine, number: int, count: int) -> Vcpu:
    """Step a vCPU to its compare-and-exchange number `count`, from 1."""
    vcpu = machine.mirror.vcpus[number]
    for _ in range(20_000):
        rip = vcpu.get_registers().rip - HELPER_VA
        code = machine.read_helper(rip, min(4, abi.MH_PAGE_BYTES - rip % abi.MH_PAGE_BYTES))
        if code[:1] == COMPARE_EXCHANGE[0] and code[2:4] == COMPARE_EXCHANGE[1]:
            count -= 1
            if not count:
                return vcpu
        assert vcpu.run(1).reason is Reason.LIMIT
    raise AssertionError("the helper writes no map")


def last(lane: Lane) -> abi.mh_status:
    """What the helper answered last on a lane."""
    return lane.completion(lane.completed - 1).status
