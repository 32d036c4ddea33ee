"""The host against the policy: what the secure processor does for it, if the owner has not forbidden it."""

from __future__ import annotations

from functools import partial

from mh_builder.paging import GIB, PAGE_BYTES, Span, Tables
from mh_builder.schemes.space import Start
from mh_compare.arena import TRANSPORT_KEY
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import assemble
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import INSTRUCTIONS, Outcome, harmless, succeeds
from mh_emulator.cpu.registers import Registers
from mh_emulator.psp.build import CONTEXT_DATA
from mh_emulator.psp.certificate import Certificate, Usage, make_certificate
from mh_emulator.psp.crypto import private_key, shared_secret
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.packet import unseal
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import unwrap_session
from mh_emulator.psp.transport import Receiver

_VICTIM, _LOOT = 1 * GIB, 2 * GIB

_NOTHING = Policy(0)


def debug(arena: MirrorArena, allowed: Policy) -> Outcome:
    """Have the secure processor decrypt a guest page."""
    machine = arena.launched(arena.policy & ~allowed)
    out = machine.platform.memory(PAGE_BYTES)
    machine.vm.sev_dbg_decrypt((machine.memory, arena.ram[0]), (out, 0), PAGE_BYTES)
    if out.read_raw(0, PAGE_BYTES) == arena.plaintext(0):
        return succeeds("the host reads the page")
    return harmless("the host does not read the page")


def share_key(arena: MirrorArena, allowed: Policy) -> Outcome:
    """Launch a VM of the host's own under the guest's memory key, and show it the helper's secret."""
    policy = arena.policy & ~allowed
    machine = arena.launched(policy)
    thief = arena.create_vm(machine.platform)
    arena.init(thief)
    thief.sev_launch_start(policy, handle=machine.vm.handle)
    program = _thief(1 << arena.part.c_bit)
    own, loot = machine.platform.memory(len(program)), machine.platform.memory(PAGE_BYTES)
    own.write_raw(0, program)
    thief.sev_launch_update_data(own, 0, len(program))
    vcpu = thief.create_vcpu()
    vcpu.set_registers(Registers.long_mode(0, 0, PAGE_BYTES | 1 << arena.part.c_bit))
    if arena.start is Start.ES:
        thief.sev_launch_update_vmsa()
    thief.sev_launch_measure()
    thief.sev_launch_finish()
    secret = machine.helper_offset + arena.helper.descriptor.secret_offset
    thief.set_user_memory_region(0, 0, len(program), own, 0)
    thief.set_user_memory_region(1, _VICTIM, PAGE_BYTES, machine.helper_memory, secret)
    thief.set_user_memory_region(2, _LOOT, PAGE_BYTES, loot, 0)
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


def send_home(arena: MirrorArena, allowed: Policy) -> Outcome:
    """Have the secure processor send a guest page to a platform that is nothing but a key of the host's own."""
    machine = arena.launched(arena.policy & ~allowed)
    shown = machine.platform.credentials()
    own = private_key(b"a key of the host")
    pdh = make_certificate(own.public_key(), Usage.PDH, shown.version[:2])
    departure = machine.vm.sev_send_start(Receiver(PlatformCertificates(pdh, shown.chain), shown.amd))
    packet = machine.vm.sev_send_update_data(machine.memory, arena.ram[0], PAGE_BYTES)
    z = shared_secret(own, Certificate.parse(shown.pdh).public_key())
    page = unseal(unwrap_session(z, departure.policy, departure.session), CONTEXT_DATA, packet)
    if page == arena.plaintext(0):
        return succeeds("the host reads the page")
    return harmless("the host does not read the page")


_DEBUGGED = "The policy allows it. NODBG forbids, and under SNP a policy without DEBUG."
_SHARED = "LAUNCH_START with the guest's handle gives any VM of the host its memory key, unless NOKS is set."
_SENT = (
    "Without the policy's SEV bit nobody checks that the receiver is a chip of AMD's; NOSEND forbids all sending. "
    "Under SNP a policy with MIGRATE_MA lets an agent of the host's have the guest, which reports show."
)

ATTACKS = (
    Attack("host-debugs", "Host uses DBG_DECRYPT", partial(debug, allowed=_NOTHING)),
    Attack(
        "host-debugs-debuggable",
        "Host uses DBG_DECRYPT, no NODBG",
        partial(debug, allowed=Policy.NODBG),
        _DEBUGGED,
    ),
    Attack("host-shares-key", "Host launches a VM with the guest's key", partial(share_key, allowed=_NOTHING)),
    Attack(
        "host-shares-shareable-key",
        "Host launches a VM with the guest's key, no NOKS",
        partial(share_key, allowed=Policy.NOKS),
        _SHARED,
    ),
    Attack("host-sends-guest", "Host has the guest sent to a key of its own", partial(send_home, allowed=_NOTHING)),
    Attack(
        "host-sends-sendable-guest",
        "Host has the guest sent to a key of its own, no NOSEND",
        partial(send_home, allowed=Policy.NOSEND),
        _SENT,
    ),
)
