"""Guests that begin at the reset vector, and end well or badly."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from emulator_tests.q35.small import flash, protected
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.firmware.units import Units
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place
from mh_emulator.host.launch import launch
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner, OwnerRefuses
from mh_emulator.platform import Platform
from mh_emulator.q35 import run as runs
from mh_emulator.q35.boot import Boot, Firmware, Report
from mh_emulator.q35.launch import topology
from mh_emulator.q35.run import GuestStopped
from mh_emulator.secret import Secret

MILAN = PARTS["milan"]
RAM = 16 << 20

PRINT = """
    mov ecx, 8
next{0}:
    rol eax, 4
    mov ebx, eax
    and al, 15
    add al, 0x41
    out dx, al
    mov eax, ebx
    loop next{0}
"""
CLOCKS = "\n".join(
    [
        *("rdtsc", "mov dx, 0x402", PRINT.format(1)),
        *("mov dx, 0x608", "in eax, dx", "mov dx, 0x402", PRINT.format(2)),
        *("rdtsc", "mov dx, 0x402", PRINT.format(3), "mov al, 10", "out dx, al"),
        *("mov dx, 0x3f8", "mov al, 0x2a", "out dx, al", "sti", "hlt"),
    ]
)


def boot(data: bytes) -> Report:
    return Boot(Firmware(MILAN, Units(data), RAM), lambda _: None).run()


@pytest.mark.parametrize("part", PARTS)
def test_a_run_repeats_exactly(part: str) -> None:
    """Time stamps and timers too: a guest that prints them prints the same again, on every part."""
    data = flash(f".code16\n{CLOCKS}")
    reports = [Boot(Firmware(PARTS[part], Units(data), RAM), lambda _: None).run() for _ in range(2)]
    assert len(reports[0].debug) == 25
    assert reports[0].debug == reports[1].debug
    assert [one.serial for one in reports] == ["*", "*"]
    assert [(one.what, one.virtual_ms) for one in reports[0].milestones] == [
        (one.what, one.virtual_ms) for one in reports[1].milestones
    ]
    assert [one.what for one in reports[0].milestones] == [
        "launched", "first use of debug port", "first use of PM timer", "first use of serial port", "idle",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (flash(".code16\n cli\n hlt"), "the guest halts with interrupts off: at 0xffff0002, after 0 accesses"),
        (protected("mov dword ptr [0], 0\n mov dword ptr [4], 0\n lidt [0]\n int3"), "triple fault: at 0xffff00"),
        (protected("mov eax, 0x90000000\n jmp eax"), "load from GPA 0x90000000, where nothing is: at 0x90000000"),
        (flash(".code16\n mov dx, 0x3f8\n mov al, 0x45\n out dx, al\n cli\n hlt"), 'first on the serial port: "E"'),
    ],
    ids=["halted", "triple fault", "nowhere", "last words"],
)
def test_bad_ends_say_where(data: bytes, end: str) -> None:
    with pytest.raises(GuestStopped) as caught:
        boot(data)
    assert end in str(caught.value)
    assert "\n" not in str(caught.value)


REFLECTED = """
    mov dword ptr [0x10e8], 0x00080000 + (handler - start) % 0x10000
    mov dword ptr [0x10ec], 0xffff8e00
    mov word ptr [0x2000], 0xef
    mov dword ptr [0x2002], 0x1000
    lidt [0x2000]
    mov eax, 0x8000001f
    cpuid
    cmp ebx, 0x173
    jne bad
    hlt
bad:
    mov eax, 0x12100
    xor edx, edx
    mov ecx, 0xc0010130
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9
handler:
    cmp dword ptr [esp], {code}
    jne bad
    mov edx, eax
    mov eax, 0x40000004  # of that leaf EBX
    mov ecx, 0xc0010130
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9
    rdmsr
    mov ebx, edx
    add dword ptr [esp + 4], 2
    add esp, 4
    iretd
"""
"""#VC of CPUID in 32-bit code, as OVMF's reset vector has it; ends with a request for termination where it is wrong."""


def boot_es(code: int) -> Report:
    data = Units(protected(REFLECTED.format(code=code)))
    return Boot(Firmware(MILAN, data, RAM, policy=POLICY_ES), lambda _: None).run()


def test_es_firmware_has_its_exceptions_before_long_mode() -> None:
    """AMD64 APM volume 2, section 15.35.5: #VC with the exit code, and the GHCB's MSR answers."""
    assert [one.what for one in boot_es(0x72).milestones] == ["launched", "idle"]


def test_an_es_guest_asks_for_its_end() -> None:
    with pytest.raises(GuestStopped, match="^the guest asks for its end, the GHCB's MSR is 0x12100: where no host"):
        boot_es(0x73)


def test_an_es_guest_without_a_handler_ends() -> None:
    data = protected("mov dword ptr [0], 0\n mov dword ptr [4], 0\n lidt [0]\n cpuid")
    with pytest.raises(GuestStopped, match="^triple fault: where no host sees, after 0 accesses"):
        Boot(Firmware(MILAN, Units(data), RAM, policy=POLICY_ES), lambda _: None).run()


def test_a_loop_without_devices_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "IDLE_SECONDS", 0.2)
    with pytest.raises(GuestStopped, match=r"^the guest waits for ever: at 0xffff000[01], after 0 accesses"):
        boot(flash(".code16\n again: nop\n jmp again"))


def test_waiting_for_a_device_ends_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LONGEST_NS", 10**9)
    with pytest.raises(GuestStopped, match="^the guest waits for ever: "):
        boot(flash(".code16\n mov dx, 0x3fd\n again: in al, dx\n test al, 1\n jz again\n sti\n hlt"))


def test_memory_is_private_from_the_first_instruction_on() -> None:
    """Without page tables there is no C-bit: fw_cfg's DMA finds no descriptor in what was written so."""
    code = protected("""
        mov dword ptr [0x1000], 0x0a001900  # big-endian: choose 0x19, read
        mov dword ptr [0x1004], 0x04000000
        mov dword ptr [0x1008], 0
        mov dword ptr [0x100c], 0x00200000
        mov dx, 0x518
        mov eax, 0x00100000
        out dx, eax
        mov eax, [0x1000]
        mov dx, 0x402
        cmp eax, 0x0a001900
        sete al
        add al, 0x30
        out dx, al
        sti
        hlt
    """)
    assert boot(code).debug == "0"


def test_the_key_is_for_the_flash_that_its_owner_knows(images: dict[str, Image]) -> None:
    helper = parse_image(images["regions"].data)
    platform = Platform(MILAN, 256 << 20, 1)
    known, other = flash(".code16\n sti\n hlt"), flash(".code16\n sti\n nop\n hlt")
    owner = GuestOwner(POLICY, helper=hashlib.sha256(known).digest())
    site = prepare(platform, Placement(topology(128 << 20), ()), helper)
    site = replace(site, loaded=((Place(platform.memory(len(other)), 0), other),))
    with pytest.raises(OwnerRefuses, match="^helper: expected SHA-256"):
        launch(site, owner, (), Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV), Registers.reset(MILAN.signature))
