"""Frames of a large machine that lie in a file: what anybody sees in them is what it was."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from emulator_tests.helper.test_migrate import loaded
from emulator_tests.machine.guests import HEAP, PAGE, TEXT, Guest, assemble, run_to_halt
from mh_abi.image import HelperImage
from mh_builder.helper import build_helper
from mh_builder.paging import MIB
from mh_builder.parts import PARTS
from mh_builder.schemes.space import MIRROR_STARTS, Options, Start
from mh_emulator.dram.backing import BackingError
from mh_emulator.dram.dram import ASIDE, Dram
from mh_emulator.dram.incoherent import IncoherentDram
from mh_emulator.host.migration import Scenario, run
from mh_emulator.host.placement import Placement
from mh_emulator.host.site import Site, prepare
from mh_emulator.platform import Platform

BASE = 0x12_3400_0000
KEY, OTHER_KEY = bytes(range(16)), bytes(range(1, 17))
A, B = 7, 8
MOST = 64
"""Frames that stay in memory here."""


def pattern(number: int) -> bytes:
    return random.Random(number).randbytes(PAGE)


def dram(part: str = "milan", most: int = MOST) -> Dram:
    memory = (Dram if PARTS[part].coherent else IncoherentDram)(4 * MIB, BASE, PARTS[part], 1)
    memory.resident.most = most
    memory.install_key(A, KEY)
    memory.install_key(B, OTHER_KEY)
    return memory


def aside(memory: Dram) -> set[int]:
    """SPAs of the frames that are in the file."""
    return {memory.base_spa + number * PAGE for number, view in enumerate(memory.views) if view & ASIDE}


def put_aside(memory: Dram, *wanted: int) -> None:
    """Have other frames come until these have gone."""
    while not aside(memory).issuperset(wanted):
        memory.write_raw(memory.allocate(), pattern(0))


def access(steps: random.Random, spas: list[int], data: bytes) -> Callable[[Dram], object]:
    """Something to do with some of these pages, by chance."""
    spa, asid, pages = steps.choice(spas), steps.choice((A, B)), steps.sample(spas, 5)
    size = steps.choice((16, PAGE - 100, PAGE))
    place = spa + steps.randrange(PAGE - size + 1)
    accesses: tuple[Callable[[Dram], object], ...] = (
        lambda memory: memory.write_private(asid, place, data[:size]),
        lambda memory: memory.write_raw(place, data[:size]),
        lambda memory: memory.write_private_pages(asid, pages, data * len(pages)),
        lambda memory: memory.read_private(asid, place, size),
        lambda memory: memory.read_raw(place, size),
        lambda memory: memory.read_pages(asid, pages),
        lambda memory: memory.peek_pages(pages),
        lambda memory: memory.flush(spa, PAGE),
    )
    return steps.choice(accesses)


@pytest.mark.parametrize("part", PARTS)
def test_what_was_written_is_what_is_read(part: str) -> None:
    """With all frames in memory and with a few: every view of every page, after the same accesses."""
    some, every = dram(part), dram(part, most=1 << 20)
    steps, spas = random.Random(part), [some.allocate() for _ in range(300)]
    assert spas == [every.allocate() for _ in range(300)]
    for number in range(3000):
        do = access(steps, spas, pattern(number))
        assert do(some) == do(every)
    with some.bus:
        assert len(aside(some)) >= len(spas) - MOST
    assert not aside(every)
    assert some.peek_pages(spas) == every.peek_pages(spas)
    assert some.read_pages(A, spas) == every.read_pages(A, spas)


def test_a_host_that_reads_leaves_them_where_they_are() -> None:
    memory = dram()
    spas = [memory.allocate() for _ in range(3)]
    memory.write_private_pages(A, spas, b"".join(map(pattern, range(3))))
    stored = memory.peek_pages(spas)
    put_aside(memory, *spas)
    assert memory.read_pages(A, spas) == b"".join(map(pattern, range(3)))
    assert memory.peek_pages(spas) == stored
    assert aside(memory).issuperset(spas)


def test_what_was_cached_of_caches_that_are_not_coherent_stays_so() -> None:
    memory = dram("rome")
    spa = memory.allocate()
    memory.write_private(A, spa, pattern(1))
    memory.flush(spa, PAGE)
    memory.install_key(B, KEY)
    assert memory.read_private(B, spa, PAGE) == pattern(1)
    memory.write_private(A, spa, pattern(2))
    cached = memory.cached(spa, memory.key(A))
    put_aside(memory, spa)
    assert memory.cached(spa, memory.key(A)) == cached
    assert memory.read_private(B, spa, PAGE) == pattern(1)
    put_aside(memory, spa)
    memory.flush(spa, PAGE)
    assert memory.read_private(B, spa, PAGE) == pattern(2)


def test_none_goes_while_somebody_has_the_bus() -> None:
    memory = dram()
    with memory.bus:
        spas = [memory.allocate() for _ in range(2 * MOST)]
        memory.write_private_pages(A, spas, b"".join(map(pattern, range(2 * MOST))))
        assert not aside(memory)
    with memory.bus:
        assert len(spas) - len(aside(memory)) <= MOST


def test_a_cpu_sees_what_it_wrote_and_runs_what_it_ran() -> None:
    """A page in its TLB goes while it is between two instructions; code that it has cached stays."""
    guest = Guest()
    memory = guest.platform.dram
    vcpu = guest.launch(f"mov rsi, {HEAP}\n mov rax, 0x1234567890\n again: mov [rsi], rax\n hlt\n inc rax\n jmp again")
    memory.resident.most = MOST
    for count in range(3):
        assert run_to_halt(vcpu).rax == 0x1234567890 + count
        heap, text = guest.spa(HEAP), guest.spa(TEXT)
        put_aside(memory, heap)
        assert text not in aside(memory)
        assert int.from_bytes(memory.read_pages(guest.vm.asid, [heap])[:8], "little") == 0x1234567890 + count


def test_code_that_nobody_has_cached_goes_and_runs_again() -> None:
    guest = Guest()
    memory = guest.platform.dram
    guest.contents[TEXT] = assemble("mov eax, 77\n hlt")
    vcpu = guest.launch()
    memory.resident.most = MOST
    put_aside(memory, guest.spa(TEXT))
    assert run_to_halt(vcpu).rax == 77


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process may become larger: a write fails as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 5 * PAGE, 20 * PAGE + 100])
def test_a_full_disk_leaves_them_in_memory(room: int) -> None:
    memory = dram()
    spas = []
    with file_limit(room):
        for number in range(4 * MOST):
            spas.append(memory.allocate())
            memory.write_private(A, spas[-1], pattern(number))
        assert len(aside(memory)) == room // PAGE
        assert memory.read_pages(A, spas) == b"".join(map(pattern, range(4 * MOST)))
        for spa in spas:
            memory.write_private(A, spa, b"new")
        assert all(memory.read_private(A, spa, 3) == b"new" for spa in spas)


def test_no_folder_for_the_file_leaves_them_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    memory = dram()
    spas = [memory.allocate() for _ in range(4 * MOST)]
    memory.write_private_pages(A, spas, b"".join(map(pattern, range(4 * MOST))))
    assert memory.read_pages(A, spas) == b"".join(map(pattern, range(4 * MOST)))
    assert not aside(memory)


def test_a_file_that_has_lost_a_frame_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros in its place would be another guest."""
    made: list[IO[bytes]] = []
    original = tempfile.TemporaryFile

    def make(*, buffering: int) -> IO[bytes]:
        made.append(original(buffering=buffering))
        return made[0]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    memory = dram()
    spa = memory.allocate()
    memory.write_private(A, spa, pattern(1))
    put_aside(memory, spa)
    made[0].truncate(100)
    reads: tuple[Callable[[], bytes], ...] = (
        lambda: memory.read_private(A, spa, PAGE),
        lambda: memory.read_pages(A, [spa]),
    )
    for read in reads:
        with pytest.raises(BackingError, match=r"^DRAM: 0x64 bytes of frame 0x[0-9a-f]+ are in its file, not 0x1000$"):
            read()


def small(platform: Platform, placement: Placement, image: HelperImage) -> Site:
    """Lay out a guest on a machine that has few frames in memory."""
    platform.dram.resident.most = 4 * MOST
    return prepare(platform, placement, image)


@pytest.mark.parametrize("start", MIRROR_STARTS)
@pytest.mark.parametrize("rings", [1, 4])
@pytest.mark.parametrize("part", ["milan", "rome"])
def test_a_guest_migrates_as_ever(part: str, rings: int, start: Start) -> None:
    image = build_helper("regions", Options(vcpus=rings, start=start))
    contents = random.Random(1).randbytes(4 * MIB)
    report = run(Scenario("regions", PARTS[part], loaded(image, part), image.table_bytes, contents, prepare=small))
    assert report.good
    assert (report.vcpus, report.start) == (rings, start.value)


_MIGRATION = """
import ctypes, random, sys
from pathlib import Path
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host import migration
from mh_emulator.host.migration import Scenario, run
from mh_emulator.host.site import prepare

def move(*arguments):
    # What a launch takes for a moment is more than that of either guest which then stays: VmHWM from here on.
    Path("/proc/self/clear_refs").write_text("5")
    return moved(*arguments)

moved, migration.move = migration.move, move

def small(platform, placement, image):
    platform.dram.resident.most = int(sys.argv[1]) >> 12
    return prepare(platform, placement, image)

# PR_SET_THP_DISABLE: engines ask for pages of 2 MiB, and get some where there are some; 60 MiB, or none.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
image, part = build_helper("regions", Options()), PARTS["milan"]
contents = random.Random(1).randbytes(48 << 20)
assert run(Scenario("regions", part, hosted(image, part.c_bit), image.table_bytes, contents, prepare=small)).good
# Not ru_maxrss, which begins with that of the process that has forked this one.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def test_it_takes_the_memory_that_it_may() -> None:
    """Both guests have 48 MiB: with 4 MiB of each in memory, the most is less by more than one of them."""
    # Without it, malloc gives back what a launch has had, or does not: as the addresses come.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    taken = [
        int(subprocess.check_output([sys.executable, "-c", _MIGRATION, str(most)], env=environment))
        for most in (4 * MIB, 256 * MIB)
    ]
    assert taken[1] - taken[0] > 48 * MIB >> 10
