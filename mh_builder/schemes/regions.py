"""`regions`: a space of the mirror's own: RAM by `ram_addr` from 0, the helper physically above it.

The helper stays in main VM memory at its home; (main GPA, length, mirror GPA) tuples tell the host where
the mirror is to see it. The window has a hole at the home, because RAM appears there by `ram_addr` and a
hostile host would leave the helper's pages in it. The mirror address may be changed by the loader.
"""

from __future__ import annotations

from mh_abi import abi
from mh_builder.schemes.space import HIGH_BASE, AddressSpace, Options, Scheme, checked


def space(options: Options, memory_bytes: int) -> AddressSpace:
    """Decide the address space for an image of `memory_bytes` bytes."""
    return checked(
        AddressSpace(
            name=SCHEME.name,
            scheme_id=SCHEME.number,
            addresses=abi.mh_address_kind.MH_ADDRESS_RAM.value,
            options=options,
            base=HIGH_BASE if options.base is None else options.base,
            home=options.home,
            window=0,
            moves=True,
            memory_bytes=memory_bytes,
        )
    )


SCHEME = Scheme("regions", abi.mh_scheme.MH_SCHEME_REGIONS, space)
