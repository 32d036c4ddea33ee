"""KVM, as far as encrypted guests and their mirrors go: what Linux refuses, this refuses with the same errno.

Source: Linux, arch/x86/kvm/svm/sev.c and arch/x86/kvm/x86.c (v6.15), virt/kvm/kvm_main.c; command and capability
names in include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

from mh_emulator.kvm.asids import AsidPool
from mh_emulator.kvm.errors import KvmError
from mh_emulator.kvm.es_vcpu import EsVcpu
from mh_emulator.kvm.snp_vcpu import SnpVcpu
from mh_emulator.kvm.snp_vm import SnpVm
from mh_emulator.kvm.vcpu import Vcpu
from mh_emulator.kvm.vm import Vm, VmType

__all__ = ["AsidPool", "EsVcpu", "KvmError", "SnpVcpu", "SnpVm", "Vcpu", "Vm", "VmType"]
