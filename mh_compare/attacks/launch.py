"""The host against the launch: another helper, another policy, another place; debugging; a shared key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial

from mh_builder.paging import GIB, MIB, PAGE_BYTES, Span, Tables
from mh_compare.arena import INSTRUCTIONS, SOURCE, TRANSPORT_KEY, Arena, Op, alone
from mh_compare.attacks.attack import Attack
from mh_compare.attacks.mapping import Liar
from mh_compare.guest_os import assemble
from mh_compare.outcome import Outcome, by_status, harmless, succeeds
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import POLICY
from mh_emulator.host.placement import Placement
from mh_emulator.loader import HelperImage
from mh_emulator.owner import GuestOwner
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.policy import Policy
from mh_emulator.registers import Registers

_NODBG, _NOKS = int(Policy.NODBG), int(Policy.NOKS)
_ELSEWHERE = 128 * MIB
_VICTIM, _LOOT = 1 * GIB, 2 * GIB


class Builder(GuestOwner):
    """An owner who goes by what he has built himself, whatever the host says it loaded."""

    def __init__(self, policy: int, built: Iterable[bytes]) -> None:
        super().__init__(policy)
        self._built = list(built)

    def wrap_secret(self, measurement: Measurement, contents: Sequence[bytes], secret: bytes) -> Packet:
        """As every owner does, but for his own contents."""
        del contents
        return super().wrap_secret(measurement, self._built, secret)


def change_helper(arena: Arena) -> Outcome:
    """Load the helper with one bit of its code changed."""
    helper = arena.helper
    code = bytearray(helper.data)
    code[arena.offset("check_address")] ^= 1
    platform, placement, _ = arena.ground(SOURCE)
    machine = Machine(platform, placement, HelperImage(bytes(code), helper.descriptor))
    built = helper.launched(machine.base, arena.part.c_bit)
    contents = [data for _, data in arena.boot_contents()]
    machine.launch(Builder(POLICY, [built, *contents]), arena.boot_contents(), TRANSPORT_KEY)
    return succeeds("the owner gives the key to a changed helper")


def change_policy(arena: Arena) -> Outcome:
    """Launch with a policy that allows debugging and key sharing."""
    machine = Machine(*arena.ground(SOURCE))
    machine.vm.sev_init()
    session = GuestOwner(POLICY).open_session(machine.platform.credentials())
    machine.vm.sev_launch_start(0, session)
    return succeeds("the guest starts with the host's policy")


class Roomy(Arena):
    """A guest with RAM that nobody uses."""

    @cached_property
    def placement(self) -> Placement:
        """As elsewhere, but for the size of RAM below the PCI hole."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, below=2 * _ELSEWHERE))


class Elsewhere(Liar):
    """A host that loads the helper into other RAM of the guest, and shows it to the mirror where it belongs."""

    def _set_helper_memory(self) -> None:
        self.helper_memory, self.helper_offset = self.memory, _ELSEWHERE
        self.lie(self.base, self.memory, _ELSEWHERE, self.helper.memory_bytes)


def load_elsewhere(arena: Arena) -> Outcome:
    """Load the helper into RAM that its tables do not know as its own, then export its secret."""
    arena = Roomy(arena.candidate, arena.part)
    source = alone(arena.side(arena.launch(Elsewhere(*arena.ground(SOURCE)))))
    address = source.machine.request_address(_ELSEWHERE + int(arena.helper.descriptor.secret_offset))
    return by_status(source.ask(Op.MH_OP_EXPORT, address), "the helper exports its own secret, sealed")


def debug(arena: Arena, policy: int) -> Outcome:
    """Have the secure processor decrypt a guest page."""
    machine = arena.launched(policy=policy)
    out = machine.platform.memory(PAGE_BYTES)
    machine.vm.sev_dbg_decrypt((machine.memory, arena.ram[0]), (out, 0), PAGE_BYTES)
    if out.read_raw(0, PAGE_BYTES) == arena.plaintext(0):
        return succeeds("the host reads the page")
    return harmless("the host does not read the page")


def share_key(arena: Arena, policy: int) -> Outcome:
    """Launch a VM of the host's own under the guest's memory key, and show it the helper's secret."""
    machine = arena.launched(policy=policy)
    thief = machine.platform.create_vm()
    thief.sev_init()
    thief.sev_launch_start(policy, handle=machine.vm.handle)
    program = _thief(1 << arena.part.c_bit)
    own, loot = machine.platform.memory(len(program)), machine.platform.memory(PAGE_BYTES)
    own.write_raw(0, program)
    thief.sev_launch_update_data(own, 0, len(program))
    thief.sev_launch_measure()
    thief.sev_launch_finish()
    secret = machine.helper_offset + int(arena.helper.descriptor.secret_offset)
    thief.set_user_memory_region(0, 0, len(program), own, 0)
    thief.set_user_memory_region(1, _VICTIM, PAGE_BYTES, machine.helper_memory, secret)
    thief.set_user_memory_region(2, _LOOT, PAGE_BYTES, loot, 0)
    vcpu = thief.create_vcpu()
    vcpu.set_registers(Registers.long_mode(0, 0, PAGE_BYTES | 1 << arena.part.c_bit))
    vcpu.run(INSTRUCTIONS)
    if TRANSPORT_KEY in loot.read_raw(0, PAGE_BYTES):
        return succeeds("the host's VM reads the transport key")
    return harmless("the host's VM does not read the transport key")


def _thief(c_mask: int) -> bytes:
    """Code at 0 that copies a private page to a shared one, and its page tables."""
    tables = Tables(PAGE_BYTES)
    tables.map(Span(0, 0, PAGE_BYTES, writable=False, executable=True, private=True))
    tables.map(Span(_VICTIM, _VICTIM, PAGE_BYTES, writable=False, executable=False, private=True))
    tables.map(Span(_LOOT, _LOOT, PAGE_BYTES, writable=True, executable=False, private=False))
    code = assemble(f"mov esi, {_VICTIM:#x}\n mov edi, {_LOOT:#x}\n mov ecx, {PAGE_BYTES}\n rep movsb\n hlt")
    return code.ljust(PAGE_BYTES, b"\0") + tables.dumps(0, c_mask)


_KEY_SHARED = "LAUNCH_START with the guest's handle gives any VM of the host its memory key, unless NOKS is set."
_DEBUGGED = "The policy allows it. NODBG forbids."
_NO_ADDRESS = "The launch digest covers bytes, not where they lie; only SNP measures addresses."

ATTACKS = (
    Attack("host-changes-helper", "Host launches a changed helper", change_helper),
    Attack("host-changes-policy", "Host launches with another policy", change_policy),
    Attack("host-loads-elsewhere", "Host loads the helper at another place in RAM", load_elsewhere, _NO_ADDRESS),
    Attack("host-debugs", "Host uses DBG_DECRYPT, policy with NODBG", partial(debug, policy=POLICY)),
    Attack("host-debugs-debuggable", "The same, policy without NODBG", partial(debug, policy=_NOKS), _DEBUGGED),
    Attack("host-shares-key", "Host shares the guest's key, policy with NOKS", partial(share_key, policy=POLICY)),
    Attack(
        "host-shares-shareable-key",
        "The same, policy without NOKS (QEMU's default)",
        partial(share_key, policy=_NODBG),
        _KEY_SHARED,
    ),
)
