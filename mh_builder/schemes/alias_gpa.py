"""`alias-gpa`: the mirror sees the main VM's guest-physical space 1:1; requests carry GPAs.

As the 2021 prototype had it: everything mapped private at its own address, a shared view at a large offset.
Three things differ, on purpose. The helper sees RAM at `RAM_VA`, so that a wiped pointer reaches none of it.
That map has a hole where the helper lies, else its code and tables could be written through it; the helper
runs at `HELPER_VA` instead. And the shared view holds the ring alone, because a shared view of anything else
only serves an attacker. The hole is in the tables, so the base is a build option (`--home`), which the loader
must be able to reserve. The PCI hole is another one: devices and flash are not mapped, and no request names them.
RAM without a GPA (unplugged virtio-mem) cannot be named.
"""

from __future__ import annotations

from mh_abi import abi
from mh_builder.schemes.space import PCI_HOLE, AddressSpace, LayoutError, Options, Scheme, checked


def _space(options: Options, memory_bytes: int) -> AddressSpace:
    """Decide the address space for an image of `memory_bytes` bytes."""
    return by_gpa(SCHEME, options, memory_bytes)


def by_gpa(scheme: Scheme, options: Options, memory_bytes: int) -> AddressSpace:
    """The guest's own guest-physical space, for a scheme whose requests carry GPAs. Raises `LayoutError`."""
    if options.base not in (None, options.home):
        raise LayoutError(
            f"{scheme.name}: base {options.base:#x} is not the home {options.home:#x}: requests carry GPAs"
        )
    return checked(
        AddressSpace(
            name=scheme.name,
            scheme_id=scheme.number,
            addresses=abi.mh_address_kind.MH_ADDRESS_GPA.value,
            options=options,
            base=options.home,
            home=options.home,
            window=0,
            moves=False,
            memory_bytes=memory_bytes,
            devices=PCI_HOLE,
        )
    )


SCHEME = Scheme("alias-gpa", abi.mh_scheme.MH_SCHEME_ALIAS_GPA, _space, is_low=True)
