"""The host against what only SNP has, on guests of SEV and SEV-ES: there it is absent, or is something else."""

from __future__ import annotations

from mh_compare.attacks.attack import Attack
from mh_compare.guest_os import GuestOs
from mh_compare.mirror_arena import MirrorArena
from mh_compare.outcome import Outcome, absent, succeeds
from mh_emulator.host.launch import launch
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import Expected, GuestOwner, Version
from mh_emulator.psp.command import Command
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Channel
from mh_emulator.snp.kvm.guest import PVALIDATE, rmpadjust


def validate(arena: MirrorArena) -> Outcome:
    """Have the guest's kernel validate a page."""
    return _unknown(arena, f"xor eax, eax\n {PVALIDATE} hlt", "PVALIDATE")


def take_rights(arena: MirrorArena) -> Outcome:
    """Have the guest's kernel give itself a page."""
    return _unknown(arena, f"{rmpadjust(0, 1, 0)} hlt", "RMPADJUST")


def _unknown(arena: MirrorArena, text: str, name: str) -> Outcome:
    """#UD, for which the kernel has no handler: its vCPU is shut down."""
    kernel = GuestOs(arena.launched())
    kernel.begin(text)
    exit_ = kernel.go_on()
    if exit_.reason is Reason.SHUTDOWN:
        return absent(f"such a guest has no {name}: #UD")
    raise AssertionError(f"{name}: the guest's kernel left with {exit_}")


def stale_handle(arena: MirrorArena) -> Outcome:
    """Launch a VM under the key of a guest that has been decommissioned."""
    policy = arena.policy & ~Policy.NOKS
    machine = arena.launched(policy)
    handle = machine.vm.handle
    machine.close()
    thief = arena.create_vm(machine.platform)
    arena.init(thief)
    thief.sev_launch_start(policy, handle=handle)
    return succeeds("the host's VM has the key of a guest that is gone")


def no_swap(arena: MirrorArena) -> Outcome:
    """Look for a command that swaps."""
    if any("SWAP" in command.name for command in Command):
        raise AssertionError("SEV has a command that swaps")
    return absent(f"{arena.part.name}: no command of SEV swaps, the host does that itself, as in host-replays-guest")


def old_firmware(arena: MirrorArena) -> Outcome:
    """Show an owner a platform whose firmware is older than he allows."""
    shown = arena.ground(0)[0].credentials()
    GuestOwner(arena.policy, oldest=_after(shown.version)).open_session(shown)
    return succeeds("the owner opens a session with older firmware")


def _after(version: Version) -> Version:
    return version[0], version[1], version[2] + 1


class Forger(GuestOwner):
    """An owner to whom the host shows a measurement of its own."""

    def check_measurement(self, measurement: Measurement, expected: Expected) -> Channel:
        """Look at the host's: one bit is another."""
        mac = bytes([measurement.mac[0] ^ 1]) + measurement.mac[1:]
        return super().check_measurement(measurement._replace(mac=mac), expected)


def forge_measurement(arena: MirrorArena) -> Outcome:
    """Change the measurement on its way to the owner."""
    launch(arena.site(), Forger(arena.policy), (), arena.secret, arena.guest)
    return succeeds("the owner believes a measurement that the host has changed")


ATTACKS = (
    Attack("host-validates-twice", "Host has the guest validate a page again", validate),
    Attack("host-validates-remapped", "Host has a page validated again, behind which is another one", validate),
    Attack("guest-takes-rights", "Guest OS gives itself a page of the helper", take_rights),
    Attack("host-uses-stale-context", "Host uses the context of a guest that is gone", stale_handle),
    Attack("host-replays-swap", "Host brings a swapped page back twice", no_swap),
    Attack("host-downgrades-firmware", "Host goes back to firmware that is too old", old_firmware),
    Attack("host-forges-report", "Host forges what the owner believes of the launch", forge_measurement),
)
