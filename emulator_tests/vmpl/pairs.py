"""Pairs of SNP machines whose helpers are small, and whose owner is always the same."""

from __future__ import annotations

import random
from functools import cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.host.migration import Scenario
from mh_emulator.host.ring import Request
from mh_emulator.host.session import Batch, connect_all, end_epoch, export_batch, import_batch
from mh_emulator.host.snp_machine import SnpMachine
from mh_emulator.host.snp_migration import Pair, begin
from mh_emulator.kvm.exits import Exit, Reason

KEY = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OWNER = KEY.public_key().public_bytes_raw()
RAM_LIMIT = 5 * GIB
"""The guest has RAM above 4 GiB."""
VMSA = abi.MH_BATCH_VMSA
Op, Role, Status = abi.mh_op, abi.mh_role, abi.mh_status


@cache
def helper(part: str = "milan", vcpus: int = 1) -> HelperImage:
    """As its host gets it."""
    options = Options(start=Start.SNP, owner=OWNER, ram_limit=RAM_LIMIT, vcpus=vcpus)
    return hosted(build_helper("vmpl", options), PARTS[part].c_bit)


def scenario(part: str = "milan", pages: int = 6, vcpus: int = 1) -> Scenario:
    """A guest with a few pages of its own."""
    contents = random.Random(pages).randbytes(pages * PAGE_BYTES - 1)
    return Scenario("vmpl", PARTS[part], helper(part, vcpus), 0, contents)


def pair(vcpus: int = 1, kind: type[SnpMachine] = SnpMachine) -> Pair:
    """Both sides, with the record; the target's host expects the guest, which has not begun."""
    begun = begin(scenario(vcpus=vcpus), KEY, kind)
    begun.expect()
    begun.source.lend(begun.pages)
    return begun


def connected(vcpus: int = 1) -> Pair:
    """The same in a session."""
    both = pair(vcpus)
    connect_all(both.source.rings, both.target.rings)
    return both


def carry(both: Pair, batch: Batch) -> abi.mh_status:
    """Export and import; the first page's status at the target."""
    packets, results = export_batch(both.source.rings[0], batch)
    assert {result.status for result in results} == {Status.MH_DONE}
    return import_batch(both.target.rings[0], batch, packets)[0].status


def ask(machine: SnpMachine, op: int, count: int = 0, role: int = 0, slot: int = 0, ring: int = 0) -> abi.mh_status:
    """One operation without pages; its status."""
    return machine.rings[ring].serve([Request(op, count=count, role=role, slot=slot)])[0].status


def run(machine: SnpMachine) -> abi.mh_status:
    """RUN of the guest's vCPU; its status."""
    return ask(machine, Op.MH_OP_RUN, machine.number)


def restart(machine: SnpMachine, role: int, hello: bytes) -> abi.mh_status:
    """HELLO and START in that role; the status of START."""
    assert ask(machine, Op.MH_OP_HELLO) == Status.MH_DONE
    machine.rings[0].put_packet(0, hello)
    return ask(machine, Op.MH_OP_START, 1, role)


def is_silent(machine: SnpMachine) -> bool:
    """Whether VMRUN does not take the guest's vCPU."""
    stop: Exit = machine.run_guest(1)
    return stop.reason is Reason.FAIL_ENTRY


def next_epoch(both: Pair) -> None:
    """End the epoch on both sides."""
    end_epoch(both.source.rings[0], both.target.rings[0])
