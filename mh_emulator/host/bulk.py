"""Pages in bulk: in which batches they go, and how these get from the source's rings to the target's."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from queue import SimpleQueue
from typing import TypeAlias

from mh_abi import abi
from mh_emulator.host.ring import HelperRefused, Lane, Result
from mh_emulator.host.session import Batch, export_batch, first_failure, import_put, put_batch, runs

CHUNK = 16
"""Pages of one packet in bulk."""

Pair: TypeAlias = tuple[Lane, Lane]
"""The source's and the target's."""


def bulk(addresses: Sequence[int], chunk: int, rings: int) -> Iterator[Batch]:
    """Batches for all of these request addresses, none longer than one ring's part of them."""
    return runs(addresses, chunk, min(abi.MH_RING_SLOTS, -(-len(addresses) // (rings * chunk)) * chunk))


def move_batches(pair: Pair, batches: Iterable[Batch]) -> None:
    """Export them on the source's ring, import them on the target's, one after the other. Raises `HelperRefused`."""
    for batch in batches:
        _send(pair, batch)
        _receive(pair, batch)


def move_all(pairs: Sequence[Pair], batches: Iterable[Batch]) -> None:
    """Move them on these rings in turn. Raises `HelperRefused`.

    A ring has one batch on its way at a time. So with one ring each side waits for the other; with several, others
    are exported while one is imported. The vCPUs of one side never run at once: they would wait for each other
    (`mh_emulator.dram.bus`).
    """
    if len(pairs) == 1:
        move_batches(pairs[0], batches)
    else:
        _move_at_once(pairs, batches)


def _move_at_once(pairs: Sequence[Pair], batches: Iterable[Batch]) -> None:
    """The sending side has a thread of its own, which ends when all is sent or the receiving side has failed."""
    sent: SimpleQueue[tuple[Pair, Batch] | None] = SimpleQueue()
    free, given_up = threading.Semaphore(len(pairs)), threading.Event()

    def send_all() -> None:
        try:
            for pair, batch in zip(cycle(pairs), batches, strict=False):
                free.acquire()
                if given_up.is_set():
                    return
                _send(pair, batch)
                sent.put((pair, batch))
        finally:
            sent.put(None)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_all)
        try:
            for pair, batch in iter(sent.get, None):
                _receive(pair, batch)
                free.release()
        finally:
            given_up.set()
            free.release()
        sending.result()


def _send(pair: Pair, batch: Batch) -> None:
    """Export `batch`, and put its packets where the target will import them."""
    source, target = pair
    packets, results = export_batch(source, batch)
    _check("export", results)
    put_batch(target, batch, packets)


def _receive(pair: Pair, batch: Batch) -> None:
    _check("import", import_put(pair[1], batch))


def _check(operation: str, results: list[Result]) -> None:
    """Raise `HelperRefused` for the first page that was not moved."""
    status = first_failure(results)
    if status != abi.mh_status.MH_DONE:
        raise HelperRefused(operation, status)
