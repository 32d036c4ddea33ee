"""Where the firmware's own pages lie, as guest-physical addresses; what lies below them is not its own."""

from __future__ import annotations

from mh_builder.paging import GIB, MIB, PAGE_BYTES

ARENA = 16 * MIB
SYSTEM_TABLE, BOOT_SERVICES, RUNTIME_SERVICES, VOLUMES = (ARENA + offset for offset in (0, 0x200, 0x400, 0x800))
CODE = ARENA + PAGE_BYTES
"""Of `gates.s`."""
DRIVER = ARENA + 2 * PAGE_BYTES
SECTIONS = ARENA + 0x1_0000
CALL = ARENA + 0x17_0000
"""What a gate says of the call, and what comes of it."""
DESCRIPTORS = CALL + PAGE_BYTES
"""GDT and IDT."""
GHCB = DESCRIPTORS + PAGE_BYTES
GHCB_VIEW = 256 * GIB + GHCB
"""Virtual address of the GHCB, which is shared there. Everything else is private, and mapped 1:1."""
CONFIGURATION = GHCB + PAGE_BYTES
"""The list of configuration tables, and OVMF's for SNP."""
SECRETS = CONFIGURATION + PAGE_BYTES
STACK_TOP = ARENA + 0x18_0000
STACK_BYTES = 8 * PAGE_BYTES
TABLES = ARENA + 2 * MIB
TABLES_BYTES = 2 * MIB
"""The page tables have a region of their own, which can be mapped read-only."""
FREE_MEMORY = 32 * MIB
