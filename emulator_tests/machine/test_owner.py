"""The guest owner: what makes it hand over its secret, and what does not."""

from __future__ import annotations

import hashlib

import pytest

from emulator_tests.machine.guests import (
    PAGE,
    machine,
)
from mh_builder.parts import PARTS
from mh_emulator.kvm import KvmError, Vm
from mh_emulator.owner import Expected, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.policy import Policy


def launched(owner: GuestOwner, contents: bytes, policy: int | None = None) -> tuple[Platform, Vm]:
    platform = machine()
    vm, memory = platform.create_vm(), platform.memory(4 * PAGE)
    vm.set_user_memory_region(0, 0, 4 * PAGE, memory, 0)
    memory.write_raw(0, contents)
    vm.sev_init()
    vm.sev_launch_start(owner.policy if policy is None else policy, owner.open_session(platform.credentials()))
    vm.sev_launch_update_data(memory, 0, len(contents))
    return platform, vm


CONTENTS = bytes(range(256)) * 32


def test_the_owners_secret_lands_in_private_memory() -> None:
    owner = GuestOwner(Policy.NODBG | Policy.NOKS)
    platform, vm = launched(owner, CONTENTS)
    packet = owner.wrap_secret(
        vm.sev_launch_measure(), Expected([CONTENTS[:PAGE], CONTENTS[PAGE:]]), b"a transport key, 33 bytes of secret"
    )
    memory = platform.memory(PAGE)
    vm.sev_launch_secret(packet, memory, 0x40)
    vm.sev_launch_finish()
    assert platform.dram.read_private(vm.asid, memory.spa(0x40), 48) == b"a transport key, 33 bytes of secret".ljust(
        48, b"\0"
    )
    assert b"transport" not in memory.read_raw(0, PAGE)
    assert b"transport" not in packet.data


def test_the_owner_refuses_other_contents() -> None:
    owner = GuestOwner(0)
    _, vm = launched(owner, CONTENTS[:-1] + b"X")
    with pytest.raises(OwnerRefuses, match="launch measurement: expected .* found ") as refusal:
        owner.wrap_secret(vm.sev_launch_measure(), Expected([CONTENTS]), b"secret")
    assert "\n" not in str(refusal.value)


def test_the_owner_refuses_another_order_of_the_same_contents() -> None:
    owner = GuestOwner(0)
    _, vm = launched(owner, CONTENTS[:PAGE] + bytes(PAGE))
    with pytest.raises(OwnerRefuses):
        owner.wrap_secret(vm.sev_launch_measure(), Expected([bytes(PAGE), CONTENTS[:PAGE]]), b"secret")


def test_a_host_that_changes_the_policy_gets_no_session_and_without_one_no_secret() -> None:
    owner = GuestOwner(Policy.NODBG)
    with pytest.raises(KvmError, match="BAD_MEASUREMENT"):
        launched(owner, CONTENTS, policy=0)
    platform = machine()
    vm = platform.create_vm()
    vm.sev_init()
    vm.sev_launch_start(0)
    with pytest.raises(OwnerRefuses):
        owner.wrap_secret(vm.sev_launch_measure(), Expected(), b"secret")
    with pytest.raises(OwnerRefuses, match="guest policy: expected 0x1, found 0x0"):
        owner.check_status_policy(vm.sev_guest_status().policy)
    with pytest.raises(OwnerRefuses, match="none opened"):
        GuestOwner(0).wrap_secret(Measurement(bytes(32), bytes(16)), Expected(), b"secret")


def test_the_owner_refuses_older_firmware() -> None:
    with pytest.raises(OwnerRefuses, match="firmware: expected 1.55 build 30 or later, found 1.55 build 29"):
        launched(GuestOwner(0, oldest=(1, 55, 30)), CONTENTS)
    launched(GuestOwner(0, oldest=(1, 55, 29)), CONTENTS)


def test_the_owner_notices_a_host_that_lies_about_the_firmware() -> None:
    owner = GuestOwner(0, oldest=(1, 55, 30))
    platform = machine()
    lie = platform.credentials()._replace(version=(1, 55, 30))
    vm, memory = platform.create_vm(), platform.memory(PAGE)
    vm.sev_init()
    vm.sev_launch_start(0, owner.open_session(lie))
    vm.sev_launch_update_data(memory, 0, PAGE)
    with pytest.raises(OwnerRefuses, match="launch measurement: expected .* 1.55 build 30"):
        owner.wrap_secret(vm.sev_launch_measure(), Expected([bytes(PAGE)]), b"secret")


def test_the_owner_wants_certificates_of_amds() -> None:
    shown = machine().credentials()
    other = Platform(PARTS["milan"], 16 << 20, 2).credentials()
    for lie in (
        shown._replace(pdh=other.pdh),
        shown._replace(chain=other.chain),
        shown._replace(chain=shown.chain[:-1]),
        shown._replace(amd=shown.amd[::-1]),
    ):
        with pytest.raises(OwnerRefuses, match="platform certificates: "):
            GuestOwner(0).open_session(lie)


def test_the_owner_gives_nothing_to_another_helper() -> None:
    """Also when the measurement is right: of whatever the host launched."""
    other = CONTENTS[:-1] + b"X"
    owner = GuestOwner(0, helper=hashlib.sha256(CONTENTS).digest())
    _, vm = launched(owner, other)
    measured = vm.sev_launch_measure()
    with pytest.raises(OwnerRefuses, match="helper: expected SHA-256 .* found "):
        owner.wrap_secret(measured, Expected([other]), b"secret")
    with pytest.raises(OwnerRefuses, match="helper: "):
        owner.wrap_secret(measured, Expected(), b"secret")
    with pytest.raises(OwnerRefuses, match="launch measurement: "):
        owner.wrap_secret(measured, Expected([CONTENTS]), b"secret")
