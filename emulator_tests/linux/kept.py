"""Kernels of a few instructions that come to their first process, and files of their snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from emulator_tests.linux.small import kernel
from emulator_tests.linux.test_small import RAM, SECRET
from mh_abi.image import parse_image
from mh_builder.image.model import Image
from mh_builder.parts import PARTS
from mh_emulator.linux.boot import FIRST_PROCESS, Boot, LinuxGuest
from mh_emulator.linux.kernel import read_kernel
from mh_emulator.linux.launch import Direct
from mh_emulator.linux.load import Plan
from mh_emulator.q35.launch import topology
from mh_emulator.snapshot.shelf import Saved, Shelf

ALLOW = "mov ecx, 0x4b564d08\n mov eax, 1\n xor edx, edx\n wrmsr\n"
SAY = "lea rsi, [rip + first]\n call print\n"
FIRST = f'first: .asciz "{FIRST_PROCESS}\\n"\n'
TINY = f'{ALLOW} {SAY} lea rsi, [rip + more]\n call print\n sti\n1: hlt\n jmp 1b\n{FIRST} more: .asciz "more\\n"'


class Place(NamedTuple):
    """Files of snapshots that were written."""

    files: list[bytes]

    def shelf(self) -> Shelf:
        return Shelf(Saved.read(self.files[-1]) if self.files else None, self.files.append)


def guest(images: Mapping[str, Image], text: str, part: str = "milan", scheme: str = "regions") -> LinuxGuest:
    helper = parse_image(images[scheme].data)
    home = 0x200_0000
    room = 0 if helper.home is None else helper.memory_bytes
    if room:
        home = int(helper.descriptor.home)
    plan = Plan(read_kernel(kernel(text)), b"", "", topology(RAM), range(home, home + room))
    return LinuxGuest(PARTS[part], scheme, "own", RAM, Direct(plan, helper, SECRET))


def boot(found: LinuxGuest, place: Place | None = None) -> Boot:
    return Boot(found, lambda _: None, None if place is None else place.shelf())
