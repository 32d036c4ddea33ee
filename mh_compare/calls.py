"""Counts calls of KVM and commands of the secure processor while a guest is launched and its helper started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from mh_emulator.kvm import Vm
from mh_emulator.platform import Platform

IOCTLS = {
    "set_user_memory_region": "KVM_SET_USER_MEMORY_REGION",
    "create_vcpu": "KVM_CREATE_VCPU",
    "copy_enc_context_from": "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM",
    "sev_launch_update_vmsa": "KVM_SEV_LAUNCH_UPDATE_VMSA",
}
"""Methods of a VM that are asked of a mirror -> what Linux calls them."""

COMMANDS = {
    name: name.upper()
    for name in (
        *("launch_start", "activate", "launch_update_data", "launch_update_vmsa", "launch_measure", "launch_secret"),
        *("launch_finish", "receive_start", "receive_update_data", "receive_finish", "copy"),
    )
}
"""Methods of the firmware -> what the SEV API calls them."""


class Calls:
    """What happens on `platform` from now on."""

    def __init__(self, platform: Platform) -> None:
        self.firmware: Counter[str] = Counter()
        self.vms: list[Counter[str]] = []
        """One for each VM, in the order of KVM_CREATE_VM."""
        _count(platform.psp, COMMANDS.items(), self.firmware)
        create = platform.create_vm

        def create_vm(*arguments: Any, **named: Any) -> Vm:  # noqa: ANN401 - those of a platform
            vm = create(*arguments, **named)
            counter = Counter({"KVM_CREATE_VM": 1})
            _count(vm, IOCTLS.items(), counter)
            self.vms.append(counter)
            return vm

        setattr(platform, create.__name__, create_vm)


def in_words(counts: Counter[str]) -> str:
    """Every call with its number, where that is not 1."""
    return ", ".join(f"{name} x {number}" if number > 1 else name for name, number in counts.items())


def _count(thing: object, names: Iterable[tuple[str, str]], counter: Counter[str]) -> None:
    for method, name in names:
        setattr(thing, method, _counted(getattr(thing, method), name, counter))


def _counted(method: Callable[..., Any], name: str, counter: Counter[str]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - those of the method
        counter[name] += 1
        return method(*arguments, **named)

    return call
