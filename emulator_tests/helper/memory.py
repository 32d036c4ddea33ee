"""What a helper has in the private memory that it writes, as only the holder of the memory key can see it."""

from __future__ import annotations

from mh_abi import abi
from mh_builder.image.model import Image, vcpu_section
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.host.machine import Machine

PAGE = abi.MH_PAGE_BYTES
WORD = 8


def working_memory(image: Image, machine: Machine) -> bytes:
    """All variables, blocks and stacks of the vCPUs; without bitmaps, and without what was imported."""
    scratch = image.symbol("vcpu_scratch").value - HELPER_VA - image.section(".vcpu").offset
    places = [(image.section(".bss").offset, image.section(".bss").size)]
    for number in range(machine.vcpus):
        places.append((image.section(vcpu_section(".vcpu", number)).offset, scratch))
        for name in (".stack", ".fault_stack"):
            section = image.section(vcpu_section(name, number))
            places.append((section.offset, section.size))
    return b"".join(machine.read_helper(at, PAGE) for start, size in places for at in range(start, start + size, PAGE))


def words_of(*secrets: bytes) -> set[bytes]:
    """The words that tell that some of `secrets` is there."""
    return {secret[at : at + WORD] for secret in secrets for at in range(0, len(secret), WORD)}


def found(image: Image, machine: Machine, *secrets: bytes) -> set[bytes]:
    """The words of `secrets` that are in the helper's memory, at whatever place, or in the registers of its vCPUs."""
    memory = working_memory(image, machine) + b"".join(registers(machine, n) for n in range(machine.vcpus))
    return {word for word in words_of(*secrets) if word in memory}


def registers(machine: Machine, number: int = 0) -> bytes:
    """General and vector registers of a vCPU; none where they are encrypted."""
    if machine.es:
        return b""
    state = machine.mirror.vcpus[number].get_registers()
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))
    words = [getattr(state, name).to_bytes(8, "little") for name in general]
    return b"".join([*words, *(value.to_bytes(16, "little") for value in state.xmm)])


def session_key(image: Image, machine: Machine) -> bytes:
    """What lies where the session's key waits for the rings that join."""
    return machine.read_helper(image.symbol("session_record").value - HELPER_VA, abi.MH_KEY_BYTES)


def generation(image: Image, machine: Machine) -> int:
    """Of the session: odd while it is alive."""
    return int.from_bytes(machine.read_helper(image.symbol("session_generation").value - HELPER_VA, 8), "little")
