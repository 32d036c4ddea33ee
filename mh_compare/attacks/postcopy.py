"""The host against a guest that runs at the target already: its newer data, and when it runs at all."""

from __future__ import annotations

from mh_compare.arena import Op, Status
from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import GuestOs
from mh_compare.mirror_arena import MirrorArena, MirrorSide
from mh_compare.outcome import Outcome, Verdict, harmless, refused, succeeds
from mh_emulator.host.session import end_epoch, resume

_NEW = 0x5EC0_4D00_5EC0_4D00
"""What the guest writes at the target."""


def roll_back(arena: MirrorArena) -> Outcome:
    """Say to the target alone that the guest runs there, and move a page a second time; then tell the source, too."""
    source, target = _running(arena)
    resume([target.ring])
    outcome = _again(arena, source, target)
    if outcome.verdict is Verdict.SUCCEEDS:
        return outcome
    resume([source.ring])
    status = source.ask(Op.MH_OP_EXPORT, arena.address(1))
    if status == Status.MH_DONE:
        return succeeds("the source seals an old page for a guest that runs elsewhere")
    return refused(f"the target: {outcome.seen}; the source, once it was told: {status.name}")


def never_resume(arena: MirrorArena) -> Outcome:
    """Move a page a second time, without telling the helpers that the guest runs."""
    return _again(arena, *_running(arena))


def _running(arena: MirrorArena) -> tuple[MirrorSide, MirrorSide]:
    """Move two pages, end the epoch, and let the guest write to the first at the target."""
    source, target = arena.connect()
    for address in (arena.address(0), arena.address(1)):
        if target.put(address, source.export(address)) != Status.MH_DONE:
            raise AssertionError("the target refuses a faithful packet")
    end_epoch(source.ring, target.ring)
    GuestOs(target.machine).run(f"mov rax, {_NEW:#x}\n mov edi, 0\n mov [rdi], rax\n hlt")
    if target.machine.read_guest(arena.ram[0], 8) != _NEW.to_bytes(8, "little"):
        raise AssertionError("the guest has written nothing")
    return source, target


def _again(arena: MirrorArena, source: MirrorSide, target: MirrorSide) -> Outcome:
    """Move the first page in the new epoch."""
    address = arena.address(0)
    status = target.put(address, source.export(address))
    if target.machine.read_guest(arena.ram[0]) == arena.plaintext(0):
        return succeeds("the guest loses what it has written at the target")
    return refused(status.name) if status != Status.MH_DONE else harmless("the guest keeps what it has written")


_UNSEEN = (
    "When a guest's vCPU runs is up to its host, and a helper sees none of it: RESUME binds whoever says it. The same "
    "host can put old copies of a page back in DRAM."
)

ATTACKS = (
    Attack("host-rolls-back-post-copy", "Host moves an old page over one that the resumed guest wrote", roll_back),
    Attack("host-never-resumes", "Host does so without ever saying that the guest runs", never_resume, _UNSEEN),
)
