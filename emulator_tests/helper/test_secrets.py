"""Where keys are, and where they are no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator_tests.helper.conftest import SECRET, Pair, Status, at_work
from mh_abi import abi
from mh_emulator.host.ring import HelperStopped, Request
from mh_emulator.host.side import Side

PAGE = abi.MH_PAGE_BYTES


def private_memory(side: Side) -> dict[int, bytes]:
    """Page offset -> what the helper sees there."""
    pages = range(0, side.machine.helper.ring_offset, PAGE)
    return {offset: side.machine.read_helper(offset, PAGE) for offset in pages}


def shared_memory(side: Side) -> bytes:
    machine = side.machine
    return machine.helper_memory.read_raw(machine.helper_offset + machine.helper.ring_offset, abi.MH_RING_BYTES)


def holds(side: Side, secret: bytes) -> list[int]:
    """Offsets of private pages other than the secret page that hold the first half of `secret`."""
    own = side.machine.helper.descriptor.secret_offset
    return [offset for offset, page in private_memory(side).items() if offset != own and secret[:16] in page]


def registers_hold(side: Side, secret: bytes) -> bool:
    state = side.machine.mirror.vcpu.get_registers()
    dump = b"".join(value.to_bytes(16, "little") for value in state.xmm)
    dump += b"".join(getattr(state, name).to_bytes(8, "little") for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi"))
    return secret[:8] in dump or secret[8:16] in dump


def secrets_of(pair: Pair, plain: bytes) -> list[bytes]:
    return [pair.keys.page_key, SECRET.key, plain]


def end(side: Side, how: str) -> None:
    match how:
        case "finish":
            side.ask(abi.mh_op.MH_OP_FINISH)
        case "abort":
            side.ask(abi.mh_op.MH_OP_ABORT)
        case "broken-ring":
            offset = side.machine.helper_offset + side.machine.helper.ring_offset
            place = offset + abi.mh_ring.fields["tail"].offset
            side.machine.helper_memory.write_raw(place, b"\xff\xff\xff\x7f")
            side.machine.mirror.run()
            with pytest.raises(HelperStopped):
                side.ring.serve([Request(abi.mh_op.MH_OP_HELLO)])
        case "fault":
            crash(side)
        case "new-start":
            side.machine.start_helper()


def crash(side: Side) -> None:
    """Send the helper to an address that is not mapped, as a host can that sets registers (plain SEV)."""
    vcpu = at_work(side)
    vcpu.set_registers(replace(vcpu.get_registers(), rip=0xFFFF_9000_0000_0000))
    side.machine.mirror.run()


def test_page_key_is_there_during_a_session(pair: Pair) -> None:
    """Shows that the search below can find something."""
    assert holds(pair.source, pair.keys.page_key)
    assert holds(pair.target, pair.keys.page_key)


@pytest.mark.parametrize("how", ["finish", "abort", "broken-ring", "fault", "new-start"])
def test_everything_is_wiped(pair: Pair, how: str) -> None:
    sealed = pair.source.export(pair.pages[0])
    pair.target.put(pair.pages[0], sealed)
    plain = pair.contents[:PAGE]
    for side in (pair.source, pair.target):
        if how == "finish" and side is pair.target:
            continue
        end(side, how)
        for secret in secrets_of(pair, plain):
            assert holds(side, secret) == []
            assert not registers_hold(side, secret)


def test_what_was_imported_is_nowhere_in_private_memory(pair: Pair) -> None:
    """Neither the tag, nor the ciphertext, which the host may have chosen: that is there under a mask. Its header is
    the one that the helper has made itself to compare with."""
    sealed = pair.source.export(pair.pages[0])
    assert pair.target.put(pair.pages[0], sealed) == Status.MH_DONE
    for secret in (pair.contents[:PAGE], sealed.data, sealed.packet[abi.MH_PACKET_AAD_BYTES :]):
        for at in range(0, len(secret), 16):
            assert holds(pair.target, secret[at:]) == []


def test_nothing_secret_reaches_shared_memory(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    pair.target.put(pair.pages[0], sealed)
    for side in (pair.source, pair.target):
        seen = shared_memory(side)
        for secret in secrets_of(pair, pair.contents[:PAGE]):
            assert all(secret[at : at + 16] not in seen for at in range(0, len(secret), 16))


def test_no_secret_in_registers_at_a_halt(pair: Pair) -> None:
    sealed = pair.source.export(pair.pages[0])
    pair.target.put(pair.pages[0], sealed)
    for side in (pair.source, pair.target):
        xmm = side.machine.mirror.vcpu.get_registers().xmm
        # Completion and packet went to the ring through these registers: the host has read them already.
        seen = shared_memory(side)
        assert all(value == 0 or value.to_bytes(16, "little") in seen for value in xmm)
        assert not registers_hold(side, pair.keys.page_key)


def test_transport_key_lies_in_the_secret_page_only(pair: Pair) -> None:
    own = pair.source.machine.helper.descriptor.secret_offset
    assert SECRET.key in pair.source.machine.read_helper(own, PAGE)
    assert holds(pair.source, SECRET.key) == []
