"""Rules about the registers of a dumped CPU: which of the rights in its tables mean something.

Source: AMD64 APM volume 2, sections 3.1.1 (CR0.WP), 5.6 (page protection: NXE, SMEP, SMAP, protection keys).
"""

from __future__ import annotations

from collections.abc import Iterator

from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout
from mh_builder.report.mapping import Mapping


def kernel_writes(layout: Layout) -> Iterator[Finding]:
    """Without CR0.WP the supervisor writes through read-only mappings."""
    cpu = layout.cpu
    if cpu is not None and not cpu.protects_from_kernel:
        yield Finding(f"CR0 {cpu.cr0:#x} is without WP: what is read-only is so for user mode alone")


def no_execute(layout: Layout) -> Iterator[Finding]:
    """Without EFER.NXE the NX bit is reserved: every use of such a mapping faults."""
    cpu = layout.cpu
    if cpu is not None and cpu.has_no_execute is False:
        yield Finding(f"EFER {cpu.efer:#x} is without NXE: entries with NX fault, and all else is executable")


def executed_user_pages(layout: Layout) -> Iterator[Finding]:
    """Without CR4.SMEP the supervisor executes what user mode can."""
    cpu = layout.cpu
    code = tuple(mapping for mapping in layout.mappings if mapping.user and mapping.executable)
    if cpu is not None and cpu.executes_user_pages and code:
        yield Finding(f"CR4 {cpu.cr4:#x} is without SMEP: of user mode {_amount(code)} can be executed")


def reached_user_pages(layout: Layout) -> Iterator[Finding]:
    """Without CR4.SMAP the supervisor reads and writes what user mode can."""
    cpu = layout.cpu
    pages = tuple(mapping for mapping in layout.mappings if mapping.user)
    if cpu is not None and cpu.reaches_user_pages and pages:
        yield Finding(f"CR4 {cpu.cr4:#x} is without SMAP: of user mode {_amount(pages)} can be reached")


def ignored_keys(layout: Layout) -> Iterator[Finding]:
    """Without CR4.PKE the CPU does not look at protection keys."""
    cpu = layout.cpu
    keyed = tuple(mapping for mapping in layout.mappings if mapping.user and mapping.key)
    if cpu is not None and not cpu.has_keys and keyed:
        yield Finding(f"CR4 {cpu.cr4:#x} is without PKE: the keys of {_amount(keyed)} mean nothing")


def _amount(mappings: tuple[Mapping, ...]) -> str:
    count = len(mappings)
    return f"{count} mapping{'s' * (count > 1)} from {mappings[0].va:#x} on"
