"""Waits for a gdb, and makes the migration's source run under it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mh_abi.errors import MigrationHelperError
from mh_abi.image import HelperImage
from mh_emulator.gdb.debugger import Debugger
from mh_emulator.gdb.packets import Connection
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit
from mh_emulator.platform import Platform

HOST = "127.0.0.1"

MachineMaker = Callable[[Platform, Placement, HelperImage], Machine]


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


def source_under(debugger: Debugger) -> MachineMaker:
    """Makes the machines of a migration; the first one's helper, the source's, runs under the debugger."""
    makers = iter([lambda *ground: _Debugged(debugger, *ground)])

    def make(platform: Platform, placement: Placement, helper: HelperImage) -> Machine:
        return next(makers, Machine)(platform, placement, helper)

    return make


class _Debugged(Machine):
    """A machine whose helper's vCPU runs as gdb lets it, for as long as that takes."""

    def __init__(self, debugger: Debugger, platform: Platform, placement: Placement, helper: HelperImage) -> None:
        super().__init__(platform, placement, helper)
        self._debugger = debugger

    def enter(self, vcpu: Vcpu, seconds: float) -> Exit:  # noqa: ARG002 - a person thinks
        """KVM_RUN under gdb."""
        return self._debugger.run(vcpu)
