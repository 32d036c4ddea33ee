"""What becomes of packets that a host relocates, repeats, exchanges or drops: by the processor, and by the helper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mh_abi import abi
from mh_builder.paging import PAGE_BYTES
from mh_emulator.host.ring import HelperRefused, Ring, Sealed
from mh_emulator.host.session import Batch, abort, connect, export_batch, finish, import_batch
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.status import CommandError, Status
from mh_emulator.verdict.impostor import Impostor
from mh_emulator.verdict.proof import NODBG_NOKS, Peer
from mh_emulator.verdict.scene import Cast, Scene
from mh_emulator.verdict.steps import Log

ATTACKS = ("relocate", "replay", "reorder", "drop")


@dataclass(frozen=True, slots=True)
class Handling:
    """What one of the two did with packets that it should not get."""

    transport: str
    """`psp` or `helper`."""
    attack: str
    told: str
    """The status that the host got for it."""
    accepted: bool

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def handlings(cast: Cast, peer: Peer) -> list[Handling]:
    """Each attack on both transports."""
    by_psp = [_by_psp(cast, attack) for attack in ATTACKS]
    scene = Scene(cast, Log(), 3)
    private = scene.private_place()
    scene.launch(NODBG_NOKS, private)
    ring = scene.start_helper(scene.mirror(), private)
    return by_psp + [_by_helper(peer.ring, ring, attack) for attack in ATTACKS]


def _by_psp(cast: Cast, attack: str) -> Handling:
    """A guest that arrives in two packets, for pages 0 and 1 of its memory."""
    scene = Scene(cast, Log(), 3)
    psp = scene.platform.psp
    impostor = Impostor(scene.platform, NODBG_NOKS)
    handle = psp.receive_start(NODBG_NOKS, impostor.session)
    psp.activate(handle, cast.part.min_asid)
    first, second = (impostor.packet(page) for page in scene.data[:2])

    def put(packet: Packet, page: int) -> None:
        psp.receive_update_data(handle, packet, scene.ram.spa(page * PAGE_BYTES), PAGE_BYTES)

    strays: dict[str, list[tuple[Packet, int]]] = {
        "relocate": [(first, 1), (second, 0)],
        "replay": [(first, 0), (second, 1), (first, 0)],
        "reorder": [(second, 1), (first, 0)],
        "drop": [(first, 0)],
    }
    status = Status.SUCCESS
    try:
        for packet, page in strays[attack]:
            put(packet, page)
        psp.receive_finish(handle)
    except CommandError as error:
        status = error.status
    return Handling("psp", attack, f"{status.name} {status:#04x}", status is Status.SUCCESS)


def _by_helper(source: Ring, target: Ring, attack: str) -> Handling:
    """Play it with two packets that one helper has exported for another."""
    connect(source, target)
    packets, _ = export_batch(source, Batch(address=0, count=2))
    first, second = packets

    def put(packet: Sealed, page: int) -> abi.mh_status:
        return import_batch(target, Batch(address=page * PAGE_BYTES, count=1), [packet])[0].status

    def drop() -> abi.mh_status:
        put(first, 0)
        try:
            finish(source, target)
        except HelperRefused as refusal:
            return refusal.status
        return abi.mh_status.MH_DONE

    strays: dict[str, Callable[[], abi.mh_status]] = {
        "relocate": lambda: put(first, 1),
        "replay": lambda: (put(first, 0), put(first, 0))[1],
        "reorder": lambda: put(second, 1),
        "drop": drop,
    }
    status = strays[attack]()
    for ring in (source, target):
        abort(ring)
    return Handling("helper", attack, status.name, status == abi.mh_status.MH_DONE)
