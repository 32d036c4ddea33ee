"""Pairs whose guest is about to leave with its context, and what the secure processor says of a guest."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from emulator_tests.vmpl.pairs import Op, Status, ask, carry, pair
from mh_abi import abi
from mh_emulator.host.session import connect_all
from mh_emulator.host.snp_context import ImageMachine
from mh_emulator.host.snp_machine import SnpMachine
from mh_emulator.host.snp_migration import Pair
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET
from mh_emulator.snp.kvm.guest import KvmMailbox

KERNEL = 1
"""VMPL, and the VMPCK of that number."""
MESSAGES = 0xA0
"""Of the secrets page: how many messages there were."""
FROM_VMRK, POLICY_AND_MEASUREMENT = 1, 1 << 0 | 1 << 3


def leaving(kind: type[SnpMachine] = ImageMachine, vcpus: int = 1) -> Pair:
    """In a session, in which the guest has stopped."""
    both = pair(vcpus, kind)
    both.work()
    connect_all(both.source.rings, both.target.rings)
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    return both


def spa_of(machine: SnpMachine) -> int:
    """Of the guest's context page."""
    assert machine.vm.gctx is not None
    return machine.vm.gctx


def guest_of(machine: SnpMachine) -> SnpGuest:
    """What the secure processor has in its context."""
    return machine.platform.psp._sp.guests[spa_of(machine)]


def secrets_page(machine: SnpMachine) -> bytes:
    offset = machine.image.snp_secrets_offset
    assert offset is not None
    return machine.read_pages([machine.helper.base + offset])


def vmpcks(machine: SnpMachine) -> bytes:
    return secrets_page(machine)[VMPCK_OFFSET : VMPCK_OFFSET + abi.MH_VMPCKS_BYTES]


def messages(machine: SnpMachine) -> int:
    count: int = struct.unpack_from("<I", secrets_page(machine), MESSAGES)[0]
    return count


def export(both: Pair, spa: int | None = None, slot: int = 0) -> abi.mh_status:
    """CONTEXT at the source, whose host says that the context lies at `spa`."""
    told = spa_of(both.source) if spa is None else spa
    both.source.rings[0].put_packet(slot, told.to_bytes(8, "little"))
    return ask(both.source, Op.MH_OP_CONTEXT, slot=slot)


def absorb(both: Pair, slot: int = 0) -> abi.mh_status:
    """CONTEXT at the target, with the source's packet."""
    both.target.rings[0].put_sealed(slot, both.source.rings[0].take_sealed(slot))
    return ask(both.target, Op.MH_OP_CONTEXT, slot=slot)


def kernel_of(machine: SnpMachine) -> KvmMailbox:
    """The guest's kernel, had it a VMPCK: what the secure processor answers it tells which guest it is."""
    mailbox = KvmMailbox(machine.vm, guest_of(machine).vmpcks[KERNEL])
    mailbox.vmpck = KERNEL
    return mailbox


@dataclass(frozen=True, slots=True)
class Identity:
    """Of a guest."""

    measurement: bytes
    key: bytes


def identity(kernel: KvmMailbox) -> Identity:
    """LD as a report has it, and a key that comes from the VMRK."""
    status, report = kernel.ask(MessageType.REPORT_REQ, struct.pack("<64xII24x", KERNEL, 0))
    assert status == 0
    wanted = struct.pack("<IIQIIQ", FROM_VMRK, 0, POLICY_AND_MEASUREMENT, KERNEL, 0, 0)
    status, key = kernel.ask(MessageType.KEY_REQ, wanted)
    assert status == 0
    return Identity(report[0x20 + 0x90 : 0x20 + 0xC0], key[0x20:0x40])
