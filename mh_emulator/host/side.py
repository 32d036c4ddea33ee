"""One side of a session, asked for one page at a time."""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi import abi
from mh_emulator.host.machine import Machine
from mh_emulator.host.ring import Request, Ring, Sealed
from mh_emulator.host.session import Batch

Op = abi.mh_op


class Asker:
    """Somebody who asks a helper for one page at a time."""

    ring: Ring

    def ask(self, op: int, address: int = 0, sealed: Sealed | None = None) -> abi.mh_status:
        """One request, for one page where it moves any, with `sealed` in the first slot; its status."""
        if sealed is not None:
            self.ring.put_sealed(0, sealed)
        return self.ring.serve([one_page(op, address)])[0].status

    def export(self, address: int) -> Sealed:
        """Export one page. Raises `HelperRefused`."""
        self.ring.ask("export", one_page(Op.MH_OP_EXPORT, address))
        return self.ring.take_sealed(0)

    def put(self, address: int, sealed: Sealed) -> abi.mh_status:
        """Import one packet; its status."""
        return self.ask(Op.MH_OP_IMPORT, address, sealed)

    def totals(self, op: int) -> Sealed:
        """The packet that ends an epoch or the session of a source. Raises `HelperRefused`."""
        self.ring.ask("totals", Request(op))
        return self.ring.take_sealed(0)


@dataclass
class Side(Asker):
    """A machine and a ring of its helper."""

    machine: Machine
    ring: Ring


def one_page(op: int, address: int) -> Request:
    """A request of that kind; export and import name the page at `address`."""
    if op in (Op.MH_OP_EXPORT, Op.MH_OP_IMPORT):
        return Batch(address=address, count=1).request(op)
    return Request(op, address=address)
