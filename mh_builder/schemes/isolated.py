"""`isolated`: as `regions`, but the helper is a private copy in memory that only the mirror maps.

The main VM cannot reach the helper under any address, so nothing is cut out of the RAM window and no
request can name the helper. How the copy comes to be under the guest's key is the host's and the secure
processor's business (LAUNCH_UPDATE_DATA on the owner with mirror-private pages).
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
            home=None,
            window=0,
            moves=True,
            memory_bytes=memory_bytes,
        )
    )


SCHEME = Scheme("isolated", abi.mh_scheme.MH_SCHEME_ISOLATED, space)
