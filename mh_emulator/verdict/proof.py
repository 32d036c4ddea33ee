"""That a helper works: it runs, and moves a page of the guest out and another in, with the right plaintext."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mh_abi import abi
from mh_abi.errors import MigrationHelperError
from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.process import Place
from mh_emulator.host.ring import Ring
from mh_emulator.host.session import Batch, connect, export_batch, finish, import_batch
from mh_emulator.kvm import Vm
from mh_emulator.psp.policy import Policy
from mh_emulator.verdict.scene import Cast, Scene
from mh_emulator.verdict.steps import Log, Step

PEER_SEED = 99
NODBG_NOKS = Policy.NODBG | Policy.NOKS


class WrongPlaintext(MigrationHelperError):
    """A page that arrived as something else than was sent."""


class Peer:
    """The other side: a guest and its helper on a platform of their own, launched with mirror-private pages."""

    def __init__(self, cast: Cast) -> None:
        self.scene = Scene(cast, Log(), PEER_SEED)
        place = self.scene.private_place()
        self.scene.launch(NODBG_NOKS, place)
        self.ring = self.scene.start_helper(self.scene.mirror(), place)


def prove(scene: Scene, vm: Vm, place: Place, peer: Peer) -> None:
    """Start the helper at `place` in `vm`; exchange pages with `peer`. Raises `WrongPlaintext`."""
    ring = scene.start_helper(vm, place)
    scene.guest_writes(0)
    export = partial(move, ring, peer.ring, 0)
    _until_seen(scene, "export", export, lambda: peer.scene.guest_sees(0) == scene.data[0])
    move(peer.ring, ring, 1)
    _until_seen(scene, "import", lambda: None, lambda: scene.guest_sees(1) == peer.scene.data[1])


def _until_seen(scene: Scene, what: str, act: Callable[[], None], seen: Callable[[], bool]) -> None:
    """With another ASID than the guest's, on a part whose caches are incoherent, only WBINVD makes it so."""
    act()
    if not seen():
        scene.log.note(Step(f"helper: {what}: stale", None))
        scene.log.do("WBINVD", scene.platform.psp.wbinvd)
        act()
    if not seen():
        raise WrongPlaintext(f"{what}: not the plaintext")
    scene.log.note(Step(f"helper: {what}", None))


def move(source: Ring, target: Ring, page: int) -> None:
    """One session that moves one page. Raises `HelperRefused`."""
    connect(source, target)
    batch = Batch(address=page * PAGE_BYTES, count=1)
    packets, results = export_batch(source, batch)
    results += import_batch(target, batch, packets)
    if any(result.status != abi.mh_status.MH_DONE for result in results):
        raise WrongPlaintext(f"page {page}: {[result.status.name for result in results]}")
    finish(source, target)
