"""What KVM would have to add for a migration of SNP guests: what it says today, and that the machine below it could.

Every line is executed twice: as KVM is today, then past KVM, on the secure processor and the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mh_builder.firmware.snp import VMSA_GPA, PageType, SnpPage
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.kvm import SnpVm
from mh_emulator.kvm.ghcb import Malformed, Response
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.rmp.instructions import NewState
from mh_emulator.snp.kvm.guest import (
    AP_VMSA,
    LAUNCHED,
    RAM_BYTES,
    REGISTER_GHCB,
    KvmGuest,
    request,
    rmpadjust,
    share_all,
)
from mh_emulator.snp.kvm.stage import KvmStage
from mh_emulator.snp.notes import Step

_IMI = 1 << 0
"""A flag that KVM would have to pass on; it knows none."""
_AGENT_POLICY = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
_AP_CREATION, _RUN_VMPL = 0x8000_0013, 0x8000_0018
_CREATE_VMPL1 = 1 << 32 | 1 << 16 | 1
"""SW_EXITINFO1: APIC ID 1, VMPL1, create."""
_SHARE_OUT = share_all(1) + rmpadjust(AP_VMSA, 1, 0, vmsa_bit=1)
_OF_MIRROR = 2
"""Number of the mirror's vCPU."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that KVM lacks, on one part."""

    id: str
    part: str
    what: str
    missing: str
    today: tuple[Step, ...]
    """With KVM as it is; the last one is refused."""
    then: tuple[Step, ...]
    """Without KVM between."""

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        steps = {name: [step.as_json() for step in getattr(self, name)] for name in ("today", "then")}
        return {"id": self.id, "part": self.part, "what": self.what, "missing": self.missing, **steps}


class _Below:
    """A guest that is launched without KVM, on the machine of a stage."""

    def __init__(self, stage: KvmStage) -> None:
        self._stage = stage
        self._host, self._psp = stage.platform.host, stage.platform.psp
        self._asid = stage.platform.part.min_asid - 1
        self.gctx = self._host.donate()
        self._psp.gctx_create(self.gctx)

    def start(self, wanted: LaunchStart) -> bool:
        """SNP_LAUNCH_START and ACTIVATE."""
        return self._stage.try_("SNP_LAUNCH_START", lambda: self._begin(wanted))

    def launch(self, page: SnpPage) -> int:
        """SNP_LAUNCH_UPDATE of one page; its SPA."""
        spa = self._host.page(page.contents)
        self._host.make_private(spa, NewState(assigned=True, gpa=page.gpa, immutable=True, asid=self._asid))
        update = LaunchUpdate(self.gctx, spa, page.kind, imi=page.imi)
        self._stage.try_("SNP_LAUNCH_UPDATE", lambda: self._psp.launch_update(update))
        return spa

    def _begin(self, wanted: LaunchStart) -> None:
        self._psp.launch_start(wanted)
        self._psp.activate(self.gctx, self._asid)


def agent_policy(stage: KvmStage) -> None:
    """a policy with MIGRATE_MA, without which no guest has a migration agent"""
    vm = stage.platform.create_vm()
    vm.sev_init2()
    stage.try_("KVM_SEV_SNP_LAUNCH_START", lambda: vm.snp_launch_start(_AGENT_POLICY))
    stage.past_kvm()
    guest = _Below(stage)
    guest.start(LaunchStart(guest.gctx, _AGENT_POLICY))


def agent_bound(stage: KvmStage) -> None:
    """MA_EN and the context of the agent, in SNP_LAUNCH_START"""
    agent = stage.guest()
    vm = stage.platform.create_vm()
    vm.sev_init2()
    stage.try_("KVM_SEV_SNP_LAUNCH_START", lambda: vm.snp_launch_start(DEFAULT_POLICY, flags=_IMI))
    stage.past_kvm()
    guest = _Below(stage)
    guest.start(LaunchStart(guest.gctx, _AGENT_POLICY, agent=agent.gctx))


def image_context(stage: KvmStage) -> None:
    """IMI_EN: a context that is launched only to take a guest in"""
    vm = stage.platform.create_vm()
    vm.sev_init2()
    stage.try_("KVM_SEV_SNP_LAUNCH_START", lambda: vm.snp_launch_start(DEFAULT_POLICY, flags=_IMI << 1))
    stage.past_kvm()
    guest = _Below(stage)
    guest.start(LaunchStart(guest.gctx, DEFAULT_POLICY, imi_en=True))


def image_page(stage: KvmStage) -> None:
    """IMI_PAGE: a page that counts into IMD too"""
    vm, memory = stage.platform.create_vm(), stage.platform.memory(RAM_BYTES)
    vm.set_user_memory_region(0, 0, RAM_BYTES, memory, 0)
    vm.sev_init2()
    vm.set_memory_attributes(0, RAM_BYTES, private=True)
    vm.snp_launch_start(DEFAULT_POLICY)
    stage.try_("KVM_SEV_SNP_LAUNCH_UPDATE", lambda: vm.snp_launch_update(0, memory, 0, PAGE_BYTES, flags=_IMI))
    stage.past_kvm()
    guest = _Below(stage)
    guest.start(LaunchStart(guest.gctx, DEFAULT_POLICY))
    guest.launch(SnpPage(PageType.NORMAL, 0, bytes(PAGE_BYTES), imi=True))


def image_vmsa(stage: KvmStage) -> None:
    """a VMSA in the incoming image: KVM launches every VMSA beside it, so LD is never IMD"""
    guest = stage.guest()
    blob = stage.export(guest.mailbox, guest.gctx, 1)
    stage.bring(guest.mailbox, MessageType.ABSORB_NOMA_REQ, 0, blob)
    stage.past_kvm()
    below = _Below(stage)
    below.start(LaunchStart(below.gctx, DEFAULT_POLICY))
    below.launch(SnpPage(PageType.VMSA, VMSA_GPA, bytes(PAGE_BYTES), imi=True))
    stage.try_("SNP_LAUNCH_FINISH", lambda: stage.platform.psp.launch_finish(LaunchFinish(below.gctx)))


def context_address(stage: KvmStage) -> None:
    """EXPORT names the context by its SPA, which KVM tells no guest; the message itself passes"""
    guest = stage.guest()
    stage.export(guest.mailbox, 0, 1)
    stage.past_kvm()
    stage.export(guest.mailbox, guest.gctx, 1)


def export_and_die(stage: KvmStage) -> None:
    """a guest that exports itself for good: KVM finds no context at its end, and loses the ASID and a page"""
    guest = stage.guest()
    gctx = guest.gctx
    stage.export(guest.mailbox, gctx, 0)
    stage.try_("SNP_DECOMMISSION", lambda: stage.platform.psp.decommission(gctx))
    stage.past_kvm()
    guest.vm.close()
    stage.try_("SNP_PAGE_RECLAIM", lambda: stage.platform.host.reclaim(gctx))


def vcpu_of_a_vmpl(stage: KvmStage) -> None:
    """AP_CREATION for a VMPL other than 0"""
    guest = stage.guest(f"{_SHARE_OUT}{REGISTER_GHCB}{request(_AP_CREATION, _CREATE_VMPL1, AP_VMSA, rax=1)}hlt")
    guest.run()
    _answered(stage, guest, "AP_CREATION")
    stage.past_kvm()
    guest.start_ap()
    stage.run(guest, "VMRUN of VMPL1", 1)


def switch_of_vmpls(stage: KvmStage) -> None:
    """RUN_VMPL: one vCPU that goes on at another VMPL, so that a helper and its guest share it"""
    guest = stage.guest(f"{_SHARE_OUT}{REGISTER_GHCB}{request(_RUN_VMPL, 1)}hlt\n hlt")
    guest.run()
    _answered(stage, guest, "RUN_VMPL")
    stage.past_kvm()
    vcpu = guest.vcpus[0]
    helper, vcpu.vmsa_spa = vcpu.vmsa_spa, guest.spa(AP_VMSA)
    stage.run(guest, "VMRUN of VMPL1")
    vcpu.vmsa_spa = helper
    stage.run(guest, "VMRUN of VMPL0")


def mirror_vcpu(stage: KvmStage) -> None:
    """a vCPU of a mirror: KVM makes no VMSA once the guest runs, but the guest itself can"""
    guest, mirror = _mirrored(stage)
    stage.run(guest, "VMRUN", _OF_MIRROR)
    stage.past_kvm()
    _show_memory(guest, mirror)
    guest.vcpus[_OF_MIRROR].vmsa_spa = guest.spa(AP_VMSA)
    stage.run(guest, "VMRUN", _OF_MIRROR)


def mirror_memory(stage: KvmStage) -> None:
    """the guest's private pages in a mirror: with a guest_memfd of its own it finds others, not validated"""
    guest, mirror = _mirrored(stage)
    guest.vcpus[_OF_MIRROR].vmsa_spa = guest.spa(AP_VMSA)
    mirror.set_memory_attributes(0, RAM_BYTES, private=True)
    stage.run(guest, "VMRUN", _OF_MIRROR)
    stage.past_kvm()
    guest, mirror = _mirrored(stage)
    guest.vcpus[_OF_MIRROR].vmsa_spa = guest.spa(AP_VMSA)
    _show_memory(guest, mirror)
    stage.run(guest, "VMRUN", _OF_MIRROR)


def _mirrored(stage: KvmStage) -> tuple[KvmGuest, SnpVm]:
    """A guest that has made a VMSA, and a mirror of it, whose vCPU is the third of `vcpus`."""
    guest = stage.guest(_SHARE_OUT + "hlt")
    guest.run()
    mirror = stage.platform.create_vm()
    mirror.copy_enc_context_from(guest.vm)
    mirror.set_user_memory_region(0, 0, RAM_BYTES, guest.memory, 0)
    guest.vcpus.append(mirror.create_vcpu())
    return guest, mirror


def _show_memory(guest: KvmGuest, mirror: SnpVm) -> None:
    """What one guest_memfd for both would be."""
    mirror.set_memory_attributes(0, RAM_BYTES, private=True)
    for gpa in LAUNCHED:
        mirror.remap(gpa, guest.spa(gpa))


def _answered(stage: KvmStage, guest: KvmGuest, name: str) -> None:
    response, detail = guest.answered()
    stage.note(Step(name, detail, Malformed(detail).name if response == Response.MALFORMED_INPUT else "SUCCESS"))


NEEDS: Mapping[str, tuple[Callable[[KvmStage], None], str]] = MappingProxyType(
    {
        "agent-policy": (agent_policy, "MIGRATE_MA among the policies that KVM takes"),
        "agent-bound": (agent_bound, "the file descriptor of the agent in KVM_SEV_SNP_LAUNCH_START"),
        "image-context": (image_context, "a flag of KVM_SEV_SNP_LAUNCH_START"),
        "image-page": (image_page, "a flag of KVM_SEV_SNP_LAUNCH_UPDATE"),
        "image-vmsa": (image_vmsa, "the same flag for the VMSAs of KVM_SEV_SNP_LAUNCH_FINISH"),
        "context-address": (context_address, "an answer to the guest that asks for it, or a handle in its place"),
        "export-and-die": (export_and_die, "an end of the VM that knows of guests that have left"),
        "vmpl-vcpu": (vcpu_of_a_vmpl, "the VMPL in SW_EXITINFO1, with a VMSA for each VMPL of a vCPU"),
        "vmpl-switch": (switch_of_vmpls, "NAE 0x80000018 and its form in the MSR"),
        "mirror-vcpu": (mirror_vcpu, "snp_context and vmsa_features in the copy, and AP_CREATION for a vCPU of it"),
        "mirror-memory": (mirror_memory, "one guest_memfd for two VMs with one ASID"),
    }
)
"""By id: how it is executed, and what is missing; what it is about is its docstring."""


def need(name: str, part: Part) -> Need:
    """Execute one line. Raises `ValueError` for a part without SEV-SNP."""
    play, missing = NEEDS[name]
    stage = KvmStage(part)
    play(stage)
    return Need(name, part.name, play.__doc__ or "", missing, tuple(stage.today), tuple(stage.steps))


def needs(parts: Sequence[Part]) -> tuple[Need, ...]:
    """Execute every line on these parts."""
    return tuple(need(name, part) for part in parts for name in NEEDS)
