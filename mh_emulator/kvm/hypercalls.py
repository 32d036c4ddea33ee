"""Hypercalls: KVM_HC_MAP_GPA_RANGE goes to the host where it wants that, everything else is answered here.

Source: Linux, arch/x86/kvm/x86.c (kvm_emulate_hypercall), Documentation/virt/kvm/x86/hypercalls.rst,
include/uapi/linux/kvm_para.h (error numbers).
"""

from __future__ import annotations

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.frame import Frame

MAP_GPA_RANGE = 12
"""RBX: first GPA, RCX: 4 KiB pages, RDX: attributes."""
MAP_GPA_RANGE_ENCRYPTED = 1 << 4

EPERM, EINVAL, ENOSYS = 1, 22, 1000
"""KVM_EPERM and so on; RAX becomes the negative."""

_ALL = (1 << 64) - 1


def begin(frame: Frame, enabled: int) -> Exit | None:
    """Answer the hypercall, or return the exit for it; `enabled` has a bit for each number that the host wants."""
    number, arguments = frame.read("rax"), tuple(frame.read(name) for name in ("rbx", "rcx", "rdx"))
    gpa, pages, _ = arguments
    page = gpa >> PAGE_SHIFT
    if frame.privilege:
        finish(frame, -EPERM)
    elif number != MAP_GPA_RANGE or not enabled >> MAP_GPA_RANGE & 1:
        finish(frame, -ENOSYS)
    elif gpa % PAGE_BYTES or not pages or (page + pages) & _ALL <= page:
        finish(frame, -EINVAL)
    else:
        return Exit(Reason.HYPERCALL, number=number, arguments=arguments)
    return None


def finish(frame: Frame, result: int) -> None:
    """Complete the instruction with `result` in RAX."""
    frame.write("rax", result & _ALL)
    frame.done()
