"""The host against the launch: another helper, another policy, another place; debugging; a shared key."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from mh_builder.paging import MIB, PAGE_BYTES
from mh_compare.arena import SOURCE, TRANSPORT_KEY, Op
from mh_compare.attacks.attack import Attack
from mh_compare.attacks.mapping import Liar
from mh_compare.guest_os import DATA, GuestOs
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, by_status, harmless, succeeds
from mh_emulator.dram.process import Place
from mh_emulator.host.launch import launch
from mh_emulator.host.placement import Placement
from mh_emulator.host.session import greet
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, Expected, GuestOwner

_ELSEWHERE = 128 * MIB


class Built(Expected):
    """What a host launches, but for a helper that the owner has built."""

    def __init__(self, helper: bytes) -> None:
        super().__init__()
        self._helper = helper

    def add(self, content: bytes) -> None:
        """The first content is the helper."""
        super().add(content if self.digests else self._helper)


class Builder(GuestOwner):
    """An owner who goes by what he has built himself, whatever the host says it loaded."""

    def __init__(self, policy: int, built: bytes) -> None:
        super().__init__(policy)
        self._built = built

    def expect(self) -> Expected:
        """As every owner does, but for a helper of his own."""
        return Built(self._built)


def change_helper(arena: MirrorArena) -> Outcome:
    """Load the helper with one bit of its code changed."""
    helper = arena.helper
    code = bytearray(helper.data)
    code[arena.offset("check_address")] ^= 1
    platform, placement, _ = arena.ground(SOURCE)
    site = prepare(platform, placement, replace(helper, data=bytes(code)))
    built = helper.launched(site.base, arena.part.c_bit)
    launch(site, Builder(arena.policy, built), arena.boot_contents(), arena.secret, arena.guest)
    return succeeds("the owner gives the key to a changed helper")


def change_policy(arena: MirrorArena) -> Outcome:
    """Launch with a policy that allows debugging and key sharing."""
    site = arena.site(SOURCE)
    arena.init(site.vm)
    session = GuestOwner(arena.policy).open_session(site.platform.credentials())
    site.vm.sev_launch_start(arena.policy & ~POLICY, session)
    return succeeds("the guest starts with the host's policy")


class Roomy(MirrorArena):
    """A guest with RAM that is not used."""

    @cached_property
    def placement(self) -> Placement:
        """As elsewhere, but for the size of RAM below the PCI hole."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, below=2 * _ELSEWHERE))


def load_elsewhere(arena: MirrorArena) -> Outcome:
    """Load the helper into RAM that its tables do not know as its own, then export its secret."""
    arena = Roomy(arena.candidate)
    site = arena.site(SOURCE)
    helper = replace(site.helper, place=Place(site.memory, _ELSEWHERE))
    site = replace(site, helper=helper, loaded=((helper.place, helper.code),), secrets=(helper.secret,))
    machine = Liar.beside(arena.launch(site))
    # The mirror is to see it where it belongs.
    machine.lie(machine.base, machine.memory, _ELSEWHERE, machine.helper.memory_bytes)
    source = arena.side(machine)
    arena.alone(source)
    address = source.machine.request_address(_ELSEWHERE + arena.helper.descriptor.secret_offset)
    return by_status(source.ask(Op.MH_OP_EXPORT, address), "the helper exports its own secret, sealed")


def repeat_secret(arena: MirrorArena) -> Outcome:
    """Have the launch secret put into the guest's first page as well; its kernel looks there."""
    site = arena.site(SOURCE)
    machine = arena.launch(replace(site, secrets=(*site.secrets, Place(site.memory, 0))))
    page = GuestOs(machine).run(f"xor esi, esi\n mov rdi, {DATA:#x}\n mov ecx, {PAGE_BYTES // 2}\n rep movsb\n hlt")
    if TRANSPORT_KEY not in page:
        return harmless("the guest's kernel finds no transport key")
    greet(arena.side(machine).ring)
    return succeeds("the guest's kernel finds the transport key in its RAM, and the helper serves as ever")


_NO_ADDRESS = "The launch digest covers bytes, not where they lie; only SNP measures addresses."

_UNBOUND = (
    "An owner's packet names no address, and the firmware takes it any number of times before LAUNCH_FINISH. A kernel "
    "that plays along learns the key of its own guest: so no key may serve two."
)

ATTACKS = (
    Attack("host-changes-helper", "Host launches a changed helper", change_helper),
    Attack("host-changes-policy", "Host launches with another policy", change_policy),
    Attack("host-loads-elsewhere", "Host loads the helper at another place in RAM", load_elsewhere, _NO_ADDRESS),
    Attack("host-repeats-secret", "Host has the launch secret put into guest RAM as well", repeat_secret, _UNBOUND),
)
