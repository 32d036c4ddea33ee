"""The sequences: ways to put the helper where only the mirror reaches it, and the attack that one of them opens.

(a), (b) and (c) name them in the order of the question: literally as proposed, in a second VM that shares the memory
key, and with the commands that a host has for its own guest. Sources: the August 2021 thread on mirror VMs
(<0fcfafde-a690-f53a-01fc-542054948bb2@redhat.com>, scheme 3); Linux, arch/x86/kvm/svm/sev.c; AMD-ASPFW, sev_mcmd.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import Place
from mh_emulator.guest.copier import Copier
from mh_emulator.kvm import Vm
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Session
from mh_emulator.psp.transport import Receiver
from mh_emulator.verdict.impostor import Impostor
from mh_emulator.verdict.proof import Peer, WrongPlaintext, prove
from mh_emulator.verdict.scene import DATA_PAGES, PROGRAM, Scene, run_to_halt
from mh_emulator.verdict.steps import Log, Stopped


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a sequence is played."""

    scene: Scene
    other: Scene
    """A second platform, for migrations."""
    peer: Peer
    policy: int


Sequence = Callable[[Stage], str]
"""Plays a sequence; returns what the main VM can still do to the helper. Raises `Stopped` where it is refused."""


def on_mirror(stage: Stage) -> str:
    """(a) Literally as proposed: RECEIVE into the mirror."""
    scene, policy = stage.scene, stage.policy
    log, psp, main = scene.log, scene.platform.psp, scene.main
    private = scene.private_place()
    scene.launch(policy, scene.in_guest)
    mirror = scene.mirror()
    impostor = Impostor(scene.platform, policy)
    packet = impostor.packet(scene.cast.code[:PAGE_BYTES])
    session = impostor.session
    shared = 0 if policy & Policy.NOKS else main.handle
    ways = [
        log.attempt("KVM_SEV_RECEIVE_START", lambda: mirror.sev_receive_start(policy, session, shared)),
        log.attempt("KVM_SEV_RECEIVE_UPDATE_DATA", lambda: mirror.sev_receive_update_data(packet, private.memory, 0)),
        log.attempt(
            "RECEIVE_UPDATE_DATA",
            lambda: psp.receive_update_data(mirror.handle, packet, private.spa(0), PAGE_BYTES),
        ),
    ]
    # A second guest with the mirror's ASID would do, too.
    second = log.do("RECEIVE_START", lambda: psp.receive_start(policy, session, shared))
    ways.append(log.attempt("ACTIVATE", lambda: psp.activate(second, main.asid)))
    if not any(ways):
        raise Stopped
    return _reach(scene, private)


def second_vm(stage: Stage) -> str:
    """(b) SEND from the guest, RECEIVE into another VM with the same key, which then runs the helper."""
    scene = stage.scene
    scene.launch(stage.policy, scene.in_guest)
    private, sharing = _loopback(stage)
    scene.log.do("KVM_SEV_RECEIVE_FINISH", sharing.sev_receive_finish)
    prove(scene, sharing, private, stage.peer)
    return _reach(scene, private)


def oracle(stage: Stage) -> str:
    """(b') As (b), but the other VM only encrypts: the helper runs in a mirror, with the guest's own ASID."""
    scene = stage.scene
    scene.launch(stage.policy, scene.in_guest)
    private, sharing = _loopback(stage)
    scene.log.do("close", sharing.close)
    prove(scene, scene.mirror(), private, stage.peer)
    return _reach(scene, private)


def shared_launch(stage: Stage) -> str:
    """(b'') LAUNCH_START with the guest's handle: a launch, measurement and secret of the helper's own."""
    scene, private = stage.scene, stage.scene.private_place()
    scene.launch(stage.policy, scene.in_guest)
    sharing = scene.platform.create_vm()
    scene.launch_helper(sharing, stage.policy, private, handle=scene.main.handle)
    prove(scene, sharing, private, stage.peer)
    return _reach(scene, private)


def at_launch(stage: Stage) -> str:
    """(c) LAUNCH_UPDATE_DATA on the owner's VM, of pages that only the mirror will map."""
    scene, private = stage.scene, stage.scene.private_place()
    scene.launch(stage.policy, private)
    prove(scene, scene.mirror(), private, stage.peer)
    return _reach(scene, private)


def on_target(stage: Stage) -> str:
    """(c) The target of a migration: RECEIVE_UPDATE_DATA on the owner's VM, of pages that only the mirror will map."""
    source, target = stage.other, stage.scene
    log, private = target.log, target.private_place()
    source.launch(stage.policy, source.in_guest)
    departure = log.do("KVM_SEV_SEND_START", lambda: source.main.sev_send_start(_receiver(target)))
    log.do("KVM_SEV_INIT", target.main.sev_init)
    session = Session(source.platform.psp.pdh_cert_export().pdh, departure.session)
    log.do("KVM_SEV_RECEIVE_START", lambda: target.main.sev_receive_start(departure.policy, session))
    mirror = target.mirror()
    pages = [(source.in_guest.at(page), private.at(page)) for page in source.cast.pages]
    ram = (Place(source.ram, 0), Place(target.ram, 0))
    pages += [(ram[0].at(page), ram[1].at(page)) for page in range(0, DATA_PAGES * PAGE_BYTES, PAGE_BYTES)]
    _send(log, (source.main, target.main), pages)
    log.do("KVM_SEV_RECEIVE_FINISH", target.main.sev_receive_finish)
    log.do("KVM_SEV_SEND_FINISH", source.main.sev_send_finish)
    target.data = source.data
    prove(target, mirror, private, stage.peer)
    return _reach(target, private)


def copied(stage: Stage) -> str:
    """(c) COPY, which no ioctl of KVM gives: page by page out of the running guest's memory."""
    scene, private = stage.scene, stage.scene.private_place()
    scene.launch(stage.policy, scene.in_guest)
    psp, handle = scene.platform.psp, scene.main.handle
    for page in scene.cast.pages:
        source, target = scene.in_guest.spa(page), private.spa(page)
        scene.log.do("COPY", partial(psp.copy, handle, source, target, PAGE_BYTES))
    prove(scene, scene.mirror(), private, stage.peer)
    return _reach(scene, private)


def by_guest(stage: Stage) -> str:
    """(c) No secure processor at all: the guest copies the helper, and the host takes the pages out of its slots."""
    scene, private = stage.scene, stage.scene.private_place()
    main = scene.main
    size, behind_ram = scene.cast.helper.ring_offset, scene.cast.ram_bytes
    program = Copier(PROGRAM, scene.in_guest.offset, behind_ram, size)
    main.set_user_memory_region(1, behind_ram, scene.cast.helper.memory_bytes, private.memory, 0)
    scene.launch(stage.policy, scene.in_guest, program=program)
    vcpu = main.create_vcpu()
    vcpu.set_registers(program.registers(scene.c_mask))
    scene.log.do("KVM_RUN", lambda: run_to_halt(vcpu))
    scene.log.do("KVM_SET_USER_MEMORY_REGION", lambda: main.set_user_memory_region(1, behind_ram, 0, private.memory, 0))
    prove(scene, scene.mirror(), private, stage.peer)
    return _reach(scene, private)


def key_sharing(stage: Stage) -> str:
    """The attack: a host that plays the sender, in a VM that shares the guest's key, reads the guest's RAM.

    Raises `WrongPlaintext` where it reads something else.
    """
    scene, policy = stage.scene, stage.policy
    log = scene.log
    scene.launch(policy, scene.private_place())
    impostor = Impostor(scene.platform, policy)
    sharing = scene.platform.create_vm()
    log.do("KVM_SEV_INIT", sharing.sev_init)
    log.do("KVM_SEV_RECEIVE_START", lambda: sharing.sev_receive_start(policy, impostor.session, scene.main.handle))
    shared = scene.cast.ram_bytes
    program = Copier(2 * shared, 0, shared, DATA_PAGES * PAGE_BYTES, shared_target=True)
    code = program.load(scene.c_mask)
    own, loot = scene.platform.memory(len(code)), scene.platform.memory(DATA_PAGES * PAGE_BYTES)
    for page in range(0, len(code), PAGE_BYTES):
        packet = impostor.packet(code[page : page + PAGE_BYTES])
        log.do("KVM_SEV_RECEIVE_UPDATE_DATA", partial(sharing.sev_receive_update_data, packet, own, page))
    log.do("KVM_SEV_RECEIVE_FINISH", sharing.sev_receive_finish)
    sharing.set_user_memory_region(0, 0, scene.ram.size, scene.ram, 0)
    sharing.set_user_memory_region(1, shared, loot.size, loot, 0)
    sharing.set_user_memory_region(2, program.base, own.size, own, 0)
    # What the guest wrote last may be in its caches only.
    log.do("WBINVD", scene.platform.psp.wbinvd)
    vcpu = sharing.create_vcpu()
    vcpu.set_registers(program.registers(scene.c_mask))
    log.do("KVM_RUN", lambda: run_to_halt(vcpu))
    stolen = loot.read_raw(0, loot.size)
    if stolen != b"".join(scene.data):
        raise WrongPlaintext("the attack read something else than the guest's RAM")
    return f"the host has {len(stolen):#x} bytes of the guest's RAM in plaintext"


SEQUENCES: Mapping[str, Sequence] = MappingProxyType(
    {
        "a": on_mirror,
        "b": second_vm,
        "b-oracle": oracle,
        "b-launch": shared_launch,
        "c-launch": at_launch,
        "c-target": on_target,
        "c-copy": copied,
        "c-guest": by_guest,
        "attack-key-sharing": key_sharing,
    }
)
"""By the identifier of the case."""


def _loopback(stage: Stage) -> tuple[Place, Vm]:
    """Send the helper's pages to this very platform, into a VM with the same key that is still receiving."""
    scene, policy = stage.scene, stage.policy
    log, main = scene.log, scene.main
    private = scene.private_place()
    departure = log.do("KVM_SEV_SEND_START", lambda: main.sev_send_start(_receiver(scene)))
    sharing = scene.platform.create_vm()
    log.do("KVM_SEV_INIT", sharing.sev_init)
    session = Session(scene.platform.psp.pdh_cert_export().pdh, departure.session)
    log.do("KVM_SEV_RECEIVE_START", lambda: sharing.sev_receive_start(policy, session, main.handle))
    pages = [(scene.in_guest.at(page), private.at(page)) for page in scene.cast.pages]
    _send(log, (main, sharing), pages)
    log.do("KVM_SEV_SEND_CANCEL", main.sev_send_cancel)
    return private, sharing


def _send(log: Log, vms: tuple[Vm, Vm], pages: list[tuple[Place, Place]]) -> None:
    source, target = vms
    packets = [
        log.do("KVM_SEV_SEND_UPDATE_DATA", partial(source.sev_send_update_data, here.memory, here.offset, PAGE_BYTES))
        for here, _ in pages
    ]
    for packet, (_, there) in zip(packets, pages, strict=True):
        receive = partial(target.sev_receive_update_data, packet, there.memory, there.offset)
        log.do("KVM_SEV_RECEIVE_UPDATE_DATA", receive)


def _receiver(scene: Scene) -> Receiver:
    shown = scene.platform.credentials()
    return Receiver(PlatformCertificates(shown.pdh, shown.chain), shown.amd)


def _reach(scene: Scene, place: Place) -> str:
    reached = scene.reachable_pages(place)
    return f"reads and writes {reached} of its pages" if reached else "nothing: no page of it is in a slot"
