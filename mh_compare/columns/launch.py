"""What a layout needs before it can move a page: read off while a guest is launched and its helper started."""

from __future__ import annotations

from collections.abc import Mapping

from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import human
from mh_compare.calls import in_words
from mh_compare.columns.column import Column, Value
from mh_compare.subject import MirrorSubject, Subject
from mh_emulator.owner import POLICY
from mh_emulator.psp.policy import Policy, policy_names

_BUILD = "build.py build --scheme {scheme} --part {part}{flags} --json"

_STRICTEST = Policy.NODBG | Policy.NOKS | Policy.NOSEND | Policy.DOMAIN | Policy.SEV


def helper_memory(subject: Subject) -> Value:
    """Private and shared memory of the image as built."""
    shared = sum(section.size for section in subject.image.sections if not section.private)
    size = subject.image.memory_bytes
    return Value(human(size), size, f"{human(shared)} of it shared")


def reserved(subject: MirrorSubject) -> Value:
    """RAM of the main VM that the started helper has, and where."""
    machine = subject.source.machine
    taken = (len(machine.memory.populated()) - len(machine.guest_pages())) * PAGE_BYTES
    if not taken:
        return Value("nothing", 0)
    return Value(human(taken), taken, f"in one piece, from GPA {machine.helper.home:#x}")


def slots(subject: MirrorSubject) -> Value:
    """Memory slots of the mirror."""
    made = subject.calls.vms[-1]["KVM_SET_USER_MEMORY_REGION"]
    return Value(str(made), made)


def kvm_calls(subject: MirrorSubject) -> Value:
    """What is asked of KVM for the mirror."""
    calls = subject.calls.vms[-1]
    return Value(str(calls.total()), calls.total(), in_words(calls))


def psp_commands(subject: Subject) -> Value:
    """What is asked of the secure processor when a VM with nothing but the helper is launched."""
    commands = subject.calls.firmware
    return Value(str(commands.total()), commands.total(), in_words(commands))


def policies(subject: MirrorSubject) -> Value:
    """Which policies let the helper be launched, started, and export a page."""
    tried = (Policy(0), Policy(POLICY), _STRICTEST)
    return of_policies({policy_names(policy): _exports(subject, int(policy)) for policy in tried})


def of_policies(tried: Mapping[str, bool]) -> Value:
    """Of policies that were tried, by their names, whether each does."""
    bad = [names for names, does in tried.items() if not does]
    return Value(f"not {', '.join(bad)}" if bad else f"any of {len(tried)} tried", detail=f"tried: {', '.join(tried)}")


def _exports(subject: MirrorSubject, policy: int) -> bool:
    arena = subject.arena()
    source = arena.side(arena.launched(policy))
    arena.alone(source)
    return bool(source.export(source.machine.request_address(arena.ram[0])).data)


COLUMNS = (
    Column("helper-memory", "memory of the helper", "bytes", helper_memory, _BUILD),
    Column("reserved", "RAM of the guest that has to be reserved", "bytes", reserved),
    Column("slots", "memory slots of the mirror", "slots", slots),
    Column("kvm-calls", "KVM calls for the mirror", "calls", kvm_calls),
    Column("psp-commands", "commands of the secure processor to launch the helper", "commands", psp_commands),
    Column("policy", "guest policy that it needs", "", policies),
)
