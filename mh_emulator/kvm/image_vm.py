"""KVM with what it would have to add for a guest whose context moves: incoming images, and where a context lies.

Nobody has written that KVM. docs/snp.md, "What KVM lacks", executes each of its additions alone: `image-page`,
`image-vmsa`, `context-address`.
"""

from __future__ import annotations

import errno

from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.snp_vm import SnpVm

OF_IMAGE = 1 << 0
"""A flag of KVM_SEV_SNP_LAUNCH_UPDATE, and for all VMSAs of KVM_SEV_SNP_LAUNCH_FINISH: IMI_PAGE."""


class ImageVm(SnpVm):
    """One VM; what is launched with `OF_IMAGE` counts into IMD as well."""

    @property
    def context_spa(self) -> int:
        """SPA of the guest's context page, for the guest to name it in EXPORT. Raises `KvmError` before the launch."""
        return self._context("KVM_SEV_SNP_CONTEXT")

    def _is_of_image(self, ioctl: str, flags: int) -> bool:
        if flags & ~OF_IMAGE:
            raise KvmError(errno.EINVAL, ioctl)
        return bool(flags)
