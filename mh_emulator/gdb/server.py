"""Waits for a gdb, and makes the migration's source run under it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mh_abi.errors import MigrationHelperError
from mh_abi.image import HelperImage
from mh_emulator.gdb.debugger import Debugger
from mh_emulator.gdb.packets import Connection
from mh_emulator.host.mirror import enter
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import Site, prepare
from mh_emulator.platform import Platform

HOST = "127.0.0.1"

SiteMaker = Callable[[Platform, Placement, HelperImage], Site]


class PortError(MigrationHelperError):
    """Nothing can listen on that port."""


@contextmanager
def attached(port: int, waits: Callable[[int], None]) -> Iterator[Debugger]:
    """A gdb that has connected to `port` of this machine, 0 for any; `waits` is told which one it is.

    Raises `PortError`.
    """
    with socket.socket() as listener:
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise PortError(f"port {port} of {HOST}: {error.strerror}") from None
        listener.listen(1)
        waits(listener.getsockname()[1])
        stream, _ = listener.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with stream:
        yield Debugger(Connection(stream))


def source_under(debugger: Debugger) -> SiteMaker:
    """Lays out the sides of a migration; the first one's helper, the source's, runs as gdb lets it, however long."""
    first = iter([lambda vcpu, _seconds: debugger.run(vcpu)])

    def make(platform: Platform, placement: Placement, helper: HelperImage) -> Site:
        return replace(prepare(platform, placement, helper), enter=next(first, enter))

    return make
