"""The host against the launch: another helper, another policy, another place; debugging; a shared key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from mh_builder.paging import MIB
from mh_compare.arena import SOURCE, TRANSPORT_KEY, Arena, Op, alone
from mh_compare.attacks.attack import Attack
from mh_compare.attacks.mapping import Liar
from mh_compare.outcome import Outcome, by_status, succeeds
from mh_emulator.host.machine import Machine
from mh_emulator.host.migration import POLICY
from mh_emulator.host.placement import Placement
from mh_emulator.loader import HelperImage
from mh_emulator.owner import GuestOwner
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.packet import Packet

_ELSEWHERE = 128 * MIB


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
    arena = Roomy(arena.candidate)
    source = alone(arena.side(arena.launch(Elsewhere(*arena.ground(SOURCE)))))
    address = source.machine.request_address(_ELSEWHERE + int(arena.helper.descriptor.secret_offset))
    return by_status(source.ask(Op.MH_OP_EXPORT, address), "the helper exports its own secret, sealed")


_NO_ADDRESS = "The launch digest covers bytes, not where they lie; only SNP measures addresses."

ATTACKS = (
    Attack("host-changes-helper", "Host launches a changed helper", change_helper),
    Attack("host-changes-policy", "Host launches with another policy", change_policy),
    Attack("host-loads-elsewhere", "Host loads the helper at another place in RAM", load_elsewhere, _NO_ADDRESS),
)
