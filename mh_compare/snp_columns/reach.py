"""Who reaches the helper's memory in an SNP guest."""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import human
from mh_compare.columns.column import Value
from mh_compare.snp_arena import SnpSide
from mh_compare.subject import SnpSubject
from mh_emulator.host.snp_machine import GUEST_VMPL
from mh_emulator.rmp.entry import Perm


def from_guest(subject: SnpSubject) -> Value:
    """Bytes of the helper's memory that the guest's kernel may write, by the RMP; what is shared is everybody's."""
    source = subject.source
    size = subject.image.memory_bytes
    pages = [page for page in range(source.base, source.base + size, PAGE_BYTES) if _is_writable(source, page)]
    shared = sum(not source.machine.vm.is_private(page) for page in pages)
    reached = len(pages) * PAGE_BYTES
    return Value(
        human(reached), reached, f"of {human(size)}; {human(shared * PAGE_BYTES)} of it shared, with the host too"
    )


def _is_writable(source: SnpSide, gpa: int) -> bool:
    machine = source.machine
    if not machine.vm.is_private(gpa):
        return machine.vm.shared_spa(gpa) is not None
    return Perm.WRITE in machine.platform.rmp.entry(machine.spa(gpa)).perms[GUEST_VMPL]
