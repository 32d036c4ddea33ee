"""`vmpl`: the helper in the SNP guest itself, at VMPL0, below the guest at VMPL1; requests carry GPAs.

There is no mirror: KVM has none that runs (`vcpu-mirror` in docs/snp.md). The space is that of `alias-gpa`, in the
guest's own: RAM at `RAM_VA` with a hole where the helper lies, the ring alone in the shared view. What keeps the guest
out of the helper is not the hole but the RMP, where VMPL1 has no right to its pages.
"""

from __future__ import annotations

from mh_abi import abi
from mh_builder.schemes.alias_gpa import by_gpa
from mh_builder.schemes.space import AddressSpace, Options, Scheme, Start


def _space(options: Options, memory_bytes: int) -> AddressSpace:
    """Decide the address space for an image of `memory_bytes` bytes."""
    return by_gpa(SCHEME, options, memory_bytes)


SCHEME = Scheme("vmpl", abi.mh_scheme.MH_SCHEME_VMPL, _space, starts=(Start.SNP,))
