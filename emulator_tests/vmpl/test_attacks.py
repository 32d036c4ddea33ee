"""What hostile hosts, and a guest's kernel, do to the helper at VMPL0: each is carried out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from emulator_tests.vmpl.pairs import KEY, RAM_LIMIT, Status, carry, connected, next_epoch, pair, run, scenario
from mh_abi import abi
from mh_builder.firmware.snp import PageType, SnpPage, pages_at
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.save_area import SNP_ACTIVE, put
from mh_emulator.attest.chain import Chain
from mh_emulator.attest.owner import NotBelieved, SnpOwner
from mh_emulator.attest.owner import Reason as Refusal
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers
from mh_emulator.guest.worker import Piece, Worker
from mh_emulator.host.attest import Messenger, fetch_records
from mh_emulator.host.placement import place
from mh_emulator.host.ring import HelperRefused, HelperStopped, Request, Sealed
from mh_emulator.host.session import Batch, connect, export_batch, import_batch, share
from mh_emulator.host.snp_machine import SnpMachine
from mh_emulator.host.snp_migration import Pair, trust
from mh_emulator.kvm.exits import Reason
from mh_emulator.rmp.entry import ALL_PERMS, Perm
from mh_emulator.rmp.fault import ErrorCode
from mh_emulator.rmp.instructions import NewState
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

VMSA_GPA = RAM_LIMIT + PAGE_BYTES
DRAM_BYTES = 32 * MIB


def machine(guest: Sequence[SnpPage]) -> SnpMachine:
    """A helper without a record, and what else its host launches."""
    one = scenario(pages=1)
    placement = place(len(one.contents), one.helper)
    return SnpMachine(SnpPlatform(one.part, DRAM_BYTES, 1), placement, one.helper, guest)


def snooping(piece: Piece) -> SnpMachine:
    """A guest that reads and writes a piece of its space, and is not kept from it by its own tables."""
    one = scenario(pages=1)
    placement = place(len(one.contents), one.helper)
    worker = Worker(placement.worker(1, one.helper, 0).base, (piece,), 1)
    c_mask = 1 << one.part.c_bit
    state = bytearray(vmsa.make(worker.start(c_mask), fpu=True, features=SNP_ACTIVE))
    put(state, "vmpl", 1)
    own = [page for gpa, data in worker.contents(c_mask) for page in pages_at(gpa, data)]
    snoop = SnpMachine(
        SnpPlatform(one.part, DRAM_BYTES, 1), placement, one.helper, [*own, *pages_at(VMSA_GPA, bytes(state))]
    )
    snoop.lend([page.gpa for page in own])
    snoop.start_guest()
    assert snoop.run_guest().reason is Reason.MSR
    return snoop


FORBIDDEN = ErrorCode.PRESENT | ErrorCode.FINAL | ErrorCode.ENCRYPTED | ErrorCode.RMP | ErrorCode.VMPL


@pytest.mark.parametrize("section", ["code", "secret", "secrets page", "VMSA"])
def test_vmpl1_reaches_nothing_of_the_helper(section: str) -> None:
    """Nor its own VMSA, with which a kernel could give itself VMPL0."""
    image = scenario().helper
    base = image.descriptor.link_base
    gpa = {
        "code": base + PAGE_BYTES,
        "secret": base + image.descriptor.secret_offset,
        "secrets page": base + (image.snp_secrets_offset or 0),
        "VMSA": VMSA_GPA,
    }[section]
    stop = snooping(Piece(gpa, PAGE_BYTES)).run_guest()
    assert (stop.reason, stop.gpa & -PAGE_BYTES, stop.value) == (Reason.RMP_FAULT, gpa, FORBIDDEN)


def test_a_vmsa_for_vmpl0_is_none() -> None:
    """A mistake in the firmware, which the digest shows: such a guest would be the helper."""
    registers = Registers.long_mode(0x1000, 0x2000, 0x3000)
    helper = machine(list(pages_at(VMSA_GPA, vmsa.make(registers, fpu=True, features=SNP_ACTIVE))))
    assert run(helper) == Status.MH_BAD_VMSA
    assert helper.run_guest(1).reason is Reason.FAIL_ENTRY


def test_the_helper_is_lent_to_nobody() -> None:
    helper = machine(())
    base = scenario().helper.descriptor.link_base
    batch = Batch(address=base, count=1, flags=abi.MH_BATCH_PRIVATE)
    assert [result.status for result in share(helper.rings[0], batch)] == [Status.MH_PROTECTED]
    with pytest.raises(HelperRefused, match="MH_PROTECTED"):
        helper.lend([base + PAGE_BYTES])


def test_no_record_for_a_target_with_a_page_of_its_hosts() -> None:
    source, target = machine(()), machine([SnpPage(PageType.NORMAL, 0x1000, b"\xcc" * PAGE_BYTES)])
    chain = source.platform.psp.chain
    owner = SnpOwner(trust(source.platform.part, Chain(chain).root, source, target, ()), Secret.fresh().table(), KEY)
    with pytest.raises(NotBelieved, match=r"^target: launch digest: ") as caught:
        fetch_records(owner, *(Messenger(side.rings[0], chain, "milan") for side in (source, target)))
    assert caught.value.reason is Refusal.DIGEST
    assert not any(source.record_page())


def rights_of_vmpl1(side: SnpMachine, gpa: int) -> int:
    return int(side.platform.rmp.entry(side.spa(gpa)).perms[1])


def page(both: Pair, number: int = 0) -> Batch:
    return Batch(address=both.pages[number], count=1)


def test_a_page_that_somebody_else_validated_is_refused_as_it_is() -> None:
    """Who is left out: with a right digest nobody else can, so the RMP is changed behind all backs."""
    both = connected()
    spa = both.target.spa(both.pages[0])
    rmp = both.target.platform.rmp
    rmp.replace(spa, rmp.entry(spa)._replace(validated=True))
    before = both.target.read_pages(both.pages[:1])
    assert carry(both, page(both)) == Status.MH_NOT_FRESH
    assert both.target.read_pages(both.pages[:1]) == before
    assert rights_of_vmpl1(both.target, both.pages[0]) == 0


def moved_elsewhere(side: SnpMachine, gpa: int) -> int:
    """Another page of the guest's behind a GPA: a hostile kernel's doing."""
    spa = side.platform.host.page()
    side.platform.host.make_private(spa, NewState(assigned=True, gpa=gpa, asid=side.vm.asid))
    side.vm.remap(gpa, spa)
    return spa


def test_no_page_is_validated_twice() -> None:
    """The host replaces one that has come, and has it come again: the helper stops, and what it wrote stays hidden."""
    both = connected()
    assert carry(both, page(both)) == Status.MH_DONE
    spa = moved_elsewhere(both.target, both.pages[0])
    next_epoch(both)
    with pytest.raises(HelperStopped, match="vector 29"):
        carry(both, page(both))
    assert not both.target.platform.rmp.entry(spa).validated


def test_a_replaced_page_is_not_exported() -> None:
    both = connected()
    moved_elsewhere(both.source, both.pages[0])
    with pytest.raises(HelperStopped, match="vector 29"):
        carry(both, page(both))


def test_exchanged_pages_are_neither_exported_nor_imported() -> None:
    both = connected()
    for number in range(2):
        assert carry(both, page(both, number)) == Status.MH_DONE
    next_epoch(both)
    for number, side in enumerate((both.target, both.source)):
        first, second = (side.spa(gpa) for gpa in both.pages[:2])
        side.vm.remap(both.pages[0], second)
        side.vm.remap(both.pages[1], first)
        with pytest.raises(HelperStopped, match="RMP_FAULT"):
            carry(both, page(both, number))


def test_a_host_that_assigns_late_loses_nothing() -> None:
    """The helper is stopped at the page, and goes on when it is there: no page is counted twice."""
    both = connected()
    side = both.target
    side.vm.set_memory_attributes(both.pages[0], PAGE_BYTES, private=False)
    with pytest.raises(HelperStopped, match="MEMORY_FAULT"):
        carry(both, page(both))
    side.expect(both.pages[:1])
    side.run_helper()
    assert side.rings[0].completion(side.rings[0].completed - 1).status == Status.MH_DONE
    assert side.read_pages(both.pages[:1]) == both.source.read_pages(both.pages[:1])


def test_a_forged_page_ends_the_session_and_the_page_can_come_in_the_next() -> None:
    """It is the helper's since the first try, which wrote nothing."""
    both = connected()
    packets, _ = export_batch(both.source.rings[0], page(both))
    forged = Sealed(packets[0].packet, bytes([packets[0].data[0] ^ 1]) + packets[0].data[1:])
    before = both.target.read_pages(both.pages[:1])
    assert import_batch(both.target.rings[0], page(both), [forged])[0].status == Status.MH_BAD_TAG
    assert both.target.read_pages(both.pages[:1]) == before
    assert rights_of_vmpl1(both.target, both.pages[0]) == 0, "or its garbage would pass for a page that came"
    both.source.rings[0].ask("abort", Request(abi.mh_op.MH_OP_ABORT))
    connect(both.source.rings[0], both.target.rings[0])
    assert carry(both, page(both)) == Status.MH_DONE
    assert rights_of_vmpl1(both.target, both.pages[0]) == ALL_PERMS & ~Perm.SHADOW_STACK


def test_what_an_earlier_session_brought_is_out_of_reach_until_it_comes_again() -> None:
    """Or a host could leave a page out that the guest has changed since, and show it the old one."""
    both = connected()
    for number in range(3):
        assert carry(both, page(both, number)) == Status.MH_DONE
    for side in (both.source, both.target):
        side.rings[0].ask("abort", Request(abi.mh_op.MH_OP_ABORT))
    lent = [rights_of_vmpl1(both.target, gpa) for gpa in both.pages[:3]]
    connect(both.source.rings[0], both.target.rings[0])
    assert all(lent)
    assert [rights_of_vmpl1(both.target, gpa) for gpa in both.pages[:3]] == [0, 0, 0]
    assert carry(both, page(both, 1)) == Status.MH_DONE
    assert [bool(rights_of_vmpl1(both.target, gpa)) for gpa in both.pages[:3]] == [False, True, False]


def test_the_host_runs_no_page_as_a_vmsa() -> None:
    """Neither the guest's before RUN, nor one that has been exported: the RMP says that they are data."""
    both = pair()

    def taken() -> bool:
        both.source.vcpu.replace_vmsa(VMSA_GPA)
        both.source.vcpu.init()
        return both.source.run_guest(1).reason is not Reason.FAIL_ENTRY

    assert not taken()
    both.source.start_guest()
    assert taken()
    connect(both.source.rings[0], both.target.rings[0])
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    assert not taken()


def test_a_vmsa_that_came_is_out_of_the_guests_reach() -> None:
    """It would choose its own VMPL."""
    both = connected()
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    assert rights_of_vmpl1(both.target, VMSA_GPA) == 0
