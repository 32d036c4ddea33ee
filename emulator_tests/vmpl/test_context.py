"""A guest's context leaves with it: the secure processor of the target takes the guest for the source's, once."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from emulator_tests.attest.carrier import carried, flipped
from emulator_tests.vmpl.context import (
    absorb,
    export,
    guest_of,
    identity,
    kernel_of,
    leaving,
    messages,
    spa_of,
    vmpcks,
)
from emulator_tests.vmpl.pairs import (
    KEY,
    Op,
    Role,
    Status,
    ask,
    carry,
    is_silent,
    pair,
    restart,
    run,
    scenario,
)
from mh_abi import abi
from mh_builder.firmware.snp import Imi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import Batch, connect, finish_all, greet
from mh_emulator.host.snp_context import ImageMachine
from mh_emulator.host.snp_machine import SnpMachine
from mh_emulator.host.snp_migration import Pair, move
from mh_emulator.host.snp_migration import run as migrate
from mh_emulator.psp.snp.message import HEADER_BYTES, Header, seal
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET


def private_memory(machine: SnpMachine) -> bytes:
    """The helper's, but for the owner's record."""
    base, image = machine.helper.base, machine.image
    pages = range(base, base + image.ring_offset, PAGE_BYTES)
    return machine.read_pages([page for page in pages if page - base != image.descriptor.secret_offset])


def goes_on(both: Pair) -> None:
    """The session ends as if no context had been asked for, and the guest runs at the target."""
    finish_all(both.source.rings, both.target.rings)
    assert run(both.target) == Status.MH_DONE
    assert not is_silent(both.target)
    assert is_silent(both.source)


@pytest.mark.parametrize(("part", "vcpus"), [("milan", 1), ("genoa", 2), ("turin", 1)])
def test_a_guest_moves_with_its_context(part: str, vcpus: int) -> None:
    report = migrate(scenario(part, pages=9, vcpus=vcpus), KEY, ImageMachine)
    assert report.context
    assert report.good
    assert not migrate(scenario(part, pages=1), KEY).context


@pytest.mark.parametrize("vcpus", [1, 2])
def test_the_secure_processor_takes_the_targets_guest_for_the_sources(vcpus: int) -> None:
    """Its reports show what the source was launched with, and keys of the VMRK open what was sealed there."""
    both = pair(vcpus, ImageMachine)
    was, other = identity(kernel_of(both.source)), identity(kernel_of(both.target))
    assert (was.measurement, other.measurement) == (guest_of(both.source).digest.ld, guest_of(both.target).digest.ld)
    assert was.measurement != other.measurement
    assert was.key != other.key
    both.work()
    counted = guest_of(both.source).message_counts[1]
    move(both.source, both.target, both.pages)
    kernel = kernel_of(both.target)
    kernel.count = counted
    assert identity(kernel) == was
    assert run(both.target) == Status.MH_DONE


def test_nothing_of_the_context_stays_with_the_helpers() -> None:
    """Nor anything of it in what the host sees."""
    both = pair(kind=ImageMachine)
    guest, own = guest_of(both.source), guest_of(both.target)
    keys = [*guest.vmpcks, guest.vmrk, guest.oek, *own.vmpcks]
    both.work()
    move(both.source, both.target, both.pages)
    for side in (both.source, both.target):
        for memory in (private_memory(side), side.rings[0].read(0, abi.MH_RING_BYTES)):
            halves = (key[at : at + 16] for key in keys for at in (0, 16))
            assert [half.hex() for half in halves if half in memory] == []


def test_the_source_is_silent_before_there_is_a_packet() -> None:
    """What becomes of the packet does not matter: neither FINISH nor the target is needed for that."""
    both = leaving()
    assert export(both) == Status.MH_DONE
    for side in (both.source, both.target):
        assert ask(side, Op.MH_OP_ABORT) == Status.MH_DONE
    hello = greet(both.target.rings[0])
    assert run(both.source) == Status.MH_WRONG_STATE
    for role in (Role.MH_ROLE_SOURCE, Role.MH_ROLE_TARGET):
        assert restart(both.source, role, hello) == Status.MH_WRONG_STATE
    assert is_silent(both.source)


@pytest.mark.parametrize("slot", [3, abi.MH_RING_SLOTS - abi.MH_MESSAGE_PAGES])
def test_pages_may_follow(slot: int) -> None:
    """The packet, and the messages to the secure processor, in whichever slot there is room behind."""
    both = leaving()
    assert export(both, slot=slot) == Status.MH_DONE
    assert absorb(both, slot=slot) == Status.MH_DONE
    assert carry(both, Batch(address=both.pages[0], count=1)) == Status.MH_DONE
    goes_on(both)


def test_a_guest_that_runs_has_no_context_to_give() -> None:
    both = pair(kind=ImageMachine)
    both.work()
    connect(both.source.rings[0], both.target.rings[0])
    before = messages(both.source)
    assert export(both) == Status.MH_RUNNING
    assert messages(both.source) == before
    assert not is_silent(both.source)
    assert carry(both, both.source.vmsa) == Status.MH_DONE
    assert export(both) == Status.MH_DONE


@pytest.mark.parametrize("spa", [0, 0xFFF, 1 << 63, (1 << 64) - 1, 0x300 << 32])
def test_the_context_is_where_the_host_says_or_nowhere(spa: int) -> None:
    """A lie costs the guest its identity, and no more."""
    both = leaving()
    before = guest_of(both.target).export()
    assert export(both, spa) == Status.MH_NO_CONTEXT
    assert not any(vmpcks(both.source))
    assert export(both) == Status.MH_NO_KEY
    goes_on(both)
    assert guest_of(both.target).export() == before


def test_the_context_of_another_guest_is_not_exported() -> None:
    both = leaving()
    other = both.source.platform.create_vm()
    other.sev_init2()
    other.snp_launch_start(DEFAULT_POLICY)
    other.snp_launch_finish()
    assert other.gctx is not None
    assert export(both, other.gctx) == Status.MH_NO_CONTEXT


class Beside(ImageMachine):
    """A helper that is launched beside the incoming image, which is empty."""

    incoming = Imi((), vmsas=False)


def test_kvm_as_it_is_launches_no_target_that_could_take_a_context() -> None:
    both = leaving(Beside)
    before = guest_of(both.target).export()
    assert export(both) == Status.MH_DONE
    assert absorb(both) == Status.MH_NO_CONTEXT
    assert guest_of(both.target).export()[:0x1C0] == before[:0x1C0]
    assert not any(vmpcks(both.target))
    goes_on(both)


def test_an_owner_who_does_not_allow_it() -> None:
    """Then the helper has no key for it."""
    both = leaving(SnpMachine)
    assert not any(vmpcks(both.source))
    assert export(both) == Status.MH_NO_KEY
    assert ask(both.source, Op.MH_OP_ABORT) == Status.MH_DONE
    assert run(both.source) == Status.MH_DONE, "nothing has happened"


def test_an_owner_who_allows_it_leaves_each_helper_one_key_until_the_end() -> None:
    both = leaving()
    for side in (both.source, both.target):
        assert vmpcks(side)[:32] == guest_of(side).vmpcks[0]
        assert not any(vmpcks(side)[32:])
    goes_on(both)
    assert not any(vmpcks(both.source) + vmpcks(both.target))


def test_a_target_without_its_key_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host answers under a key of zeros, which is all that is left of it, is no answer."""
    both = leaving()
    payload = bytes(len(abi.mh_absorb_response))

    def forge(message: bytes, _: bytes) -> bytes:
        asked = Header.parse(message[:HEADER_BYTES])
        return seal(bytes(32), Header(asked.seqno + 1, asked.kind + 1, len(payload), 0), payload)

    carried(monkeypatch, both.target.vm, forge)
    assert export(both) == Status.MH_DONE
    offset = both.target.image.snp_secrets_offset
    assert offset is not None
    spa = both.target.spa(both.target.helper.base + offset)
    both.target.platform.dram.write_private(both.target.vm.asid, spa + VMPCK_OFFSET, bytes(32))
    assert absorb(both) == Status.MH_NO_CONTEXT
    goes_on(both)


ANSWERS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "tag": flipped(0),
    "first-byte": flipped(HEADER_BYTES),
    "nothing": lambda _, __: b"",
    "request-sent-back": lambda message, _: message,
}


@pytest.mark.parametrize("change", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("is_target", [False, True])
def test_an_answer_that_the_host_changes_is_none(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes, bytes], bytes], *, is_target: bool
) -> None:
    """At the target the guest is the source's for the secure processor then, and its helper does not know."""
    both = leaving()
    carried(monkeypatch, (both.target if is_target else both.source).vm, change)
    assert export(both) == (Status.MH_DONE if is_target else Status.MH_NO_CONTEXT)
    if is_target:
        assert absorb(both) == Status.MH_NO_CONTEXT
        assert guest_of(both.target).digest.ld == guest_of(both.source).digest.ld
    goes_on(both)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((0, 0x300, 3), Status.MH_DONE),
        ((0x16, 0x300, 3), Status.MH_NO_CONTEXT),
        ((0, 0x301, 3), Status.MH_NO_CONTEXT),
        ((0, 0x2FF, 3), Status.MH_NO_CONTEXT),
        ((0, 0x300, 4), Status.MH_NO_CONTEXT),
        ((0, 0x300, 2), Status.MH_NO_CONTEXT),
    ],
)
def test_what_firmware_of_another_version_exports_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, fields: tuple[int, int, int], expected: abi.mh_status
) -> None:
    both = leaving()
    key, number = guest_of(both.source).vmpcks[0], messages(both.source) + 2
    payload = struct.pack("<III20x", *fields).ljust(len(abi.mh_export_response), b"c")
    made = seal(key, Header(number, 8, len(payload), 0), payload)
    carried(monkeypatch, both.source.vm, lambda _, __: made)
    assert export(both) == expected


def test_what_the_secure_processor_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    both, sent = leaving(), []
    for side in (both.source, both.target):
        carried(monkeypatch, side.vm, lambda message, answer: sent.append(message) or answer)  # type: ignore[func-returns-value]
    assert export(both) == Status.MH_DONE
    assert absorb(both) == Status.MH_DONE
    exporting, absorbing = sent
    # Each helper has asked for its report before.
    assert exporting[32:96] == struct.pack("<QQBBHBBHIB35x", 3, 0, 1, 1, 0x60, 7, 1, 16, 0, 0)
    assert absorbing[32:96] == struct.pack("<QQBBHBBHIB35x", 3, 0, 1, 1, 0x60, 15, 1, 0x320, 0, 0)


class Forged:
    """Changes of a packet that a host can make, and what they are."""

    @staticmethod
    def header(offset: int) -> Callable[[Sealed], Sealed]:
        return lambda sealed: Sealed(
            sealed.packet[:offset] + bytes([sealed.packet[offset] ^ 1]) + sealed.packet[offset + 1 :], sealed.data
        )

    @staticmethod
    def data(sealed: Sealed) -> Sealed:
        return Sealed(sealed.packet, bytes([sealed.data[0] ^ 1]) + sealed.data[1:])


_FIELDS = abi.mh_packet.fields
PACKETS: dict[str, tuple[Callable[[Sealed], Sealed], abi.mh_status]] = {
    "kind": (Forged.header(_FIELDS["kind"].offset), Status.MH_BAD_PACKET),
    "length": (Forged.header(_FIELDS["length"].offset), Status.MH_BAD_PACKET),
    "sequence": (Forged.header(_FIELDS["sequence"].offset), Status.MH_REPLAYED),
    "pages": (Forged.header(_FIELDS["address"].offset), Status.MH_BAD_TOTALS),
    "urgent": (Forged.header(_FIELDS["urgent"].offset), Status.MH_INCOMPLETE),
    "tag": (Forged.header(_FIELDS["tag"].offset), Status.MH_BAD_TAG),
    "data": (Forged.data, Status.MH_BAD_TAG),
}


@pytest.mark.parametrize(("change", "expected"), PACKETS.values(), ids=PACKETS)
def test_a_packet_that_the_host_changes(change: Callable[[Sealed], Sealed], expected: abi.mh_status) -> None:
    both = leaving()
    assert export(both) == Status.MH_DONE
    before = guest_of(both.target).export(), messages(both.target)
    sealed = both.source.rings[0].take_sealed(0)
    both.target.rings[0].put_sealed(0, change(sealed))
    assert ask(both.target, Op.MH_OP_CONTEXT) == expected
    assert (guest_of(both.target).export(), messages(both.target)) == before
    is_over = expected in (Status.MH_BAD_TAG, Status.MH_BAD_TOTALS)
    both.target.rings[0].put_sealed(0, sealed)
    assert ask(both.target, Op.MH_OP_CONTEXT) == (Status.MH_WRONG_STATE if is_over else Status.MH_DONE)


def test_the_target_cannot_leave_a_context_out() -> None:
    both = leaving()
    assert export(both) == Status.MH_DONE
    assert ask(both.source, Op.MH_OP_FINISH) == Status.MH_DONE
    both.target.rings[0].put_sealed(0, both.source.rings[0].take_sealed(0))
    assert ask(both.target, Op.MH_OP_FINISH) == Status.MH_OUT_OF_ORDER
    assert run(both.target) == Status.MH_WRONG_STATE


def test_a_context_is_no_end_and_an_end_is_no_context() -> None:
    both = leaving()
    assert export(both) == Status.MH_DONE
    both.target.rings[0].put_sealed(0, both.source.rings[0].take_sealed(0))
    assert ask(both.target, Op.MH_OP_FINISH) == Status.MH_BAD_PACKET
    assert ask(both.target, Op.MH_OP_EPOCH) == Status.MH_BAD_PACKET
    other = leaving()
    assert ask(other.source, Op.MH_OP_FINISH) == Status.MH_DONE
    assert absorb(other) == Status.MH_BAD_PACKET


def test_a_context_that_comes_twice_is_replayed() -> None:
    both = leaving()
    assert export(both) == Status.MH_DONE
    assert absorb(both) == Status.MH_DONE
    assert absorb(both) == Status.MH_REPLAYED


def test_it_is_the_guest_that_was_launched() -> None:
    """IMD of the source is LD of the target: the same helper, at the same place, with the same VMSAs."""
    both = pair(vcpus=2, kind=ImageMachine)
    source, target = guest_of(both.source).digest, guest_of(both.target).digest
    assert source.imd == target.imd == target.ld != source.ld
    assert spa_of(both.source) != spa_of(both.target)
