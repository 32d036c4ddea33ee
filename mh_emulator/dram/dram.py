"""System memory: what lies in DRAM, who sees it how, and the block cipher between.

Every aligned 16-byte block at system physical address P is stored as E_K(m ^ T(P)) ^ T(P), on first
generation parts without the second T(P); T(P) is the XOR of random vectors t_i over the set bits i >= 4 of P.
A page frame is held either as those raw bytes or, faster, as the plaintext under one key. The two are one
and the same memory: `own` converts between them, and nothing but the time it takes tells. Nor does anything else tell
whether a frame lies in this process's memory or aside, in a file (`mh_emulator.dram.resident`): whoever has cached
where it is forgets that before it goes, and it comes back when it is owned again.
"""

from __future__ import annotations

import ctypes
import mmap
import random
from array import array
from collections.abc import Sequence
from typing import Protocol

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_builder.parts import Part
from mh_emulator.dram.bus import Bus
from mh_emulator.dram.cipher import PageCipher, Tweaks
from mh_emulator.dram.order import frame_order
from mh_emulator.dram.resident import Resident

BLOCK_BYTES = 16

CACHED, WRITABLE = 1, 2
"""What an observer has of a frame."""

RAW = 0
"""The view of a frame that is held as stored; every key has a number of its own."""

ASIDE = 1 << 31
"""With the number of a view: the frame is held so, but not in memory. No CPU asks for such a view."""

# Linux; the mmap module does not name it before Python 3.13.
MAP_NORESERVE = 0x4000


class DramFullError(MemoryError):
    """Every frame is handed out."""


class UnknownAsidError(KeyError):
    """No key is installed for the ASID."""


class Observer(Protocol):
    """Somebody who caches translations of frames; frames are counted from the first of DRAM."""

    cached: bytearray
    """For each frame of DRAM: `CACHED` where there is a translation, and `WRITABLE` where it allows writing."""
    code: set[int]
    """Frames with cached instructions."""

    def flush_translations(self) -> None:
        """Forget all translations."""

    def flush_code(self) -> None:
        """Forget all translations and all instructions."""


class Dram:
    """`size` bytes of DRAM from system physical address `base_spa` of a machine that booted with `seed`."""

    def __init__(self, size: int, base_spa: int, part: Part, seed: int) -> None:
        if size <= 0 or (size | base_spa) % PAGE_BYTES:
            raise ValueError(f"DRAM of {size:#x} bytes at {base_spa:#x} is not made of 4 KiB pages")
        if (base_spa + size - 1) >> part.system_bits:
            raise ValueError(f"DRAM up to {base_spa + size - 1:#x} exceeds the {part.system_bits} bits of {part.name}")
        self.size = size
        self.base_spa = base_spa
        self.part = part
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._bytes = mmap.mmap(-1, size, flags=flags)
        self.host_address = ctypes.addressof(ctypes.c_char.from_buffer(self._bytes))
        """Address of the first byte in this process."""
        self.view = memoryview(self._bytes)
        self.quadwords = self.view.cast("Q")
        """The stored bytes, indexed by (SPA - base_spa) // 8."""
        self._tweaks = Tweaks(random.Random(f"tweaks {seed}"))  # noqa: S311
        self._ciphers: dict[bytes, PageCipher] = {}
        self._keys: dict[int, bytes] = {}
        self.views = array("I", bytes(4 * (size // PAGE_BYTES)))
        """How each frame is held: `RAW`, or the number of a key; and whether `ASIDE`."""
        self.executed = array("H", bytes(2 * (size // PAGE_BYTES)))
        """How many observers have instructions of each frame."""
        self._view_of: dict[bytes | None, int] = {None: RAW}
        self._key_of: list[bytes | None] = [None]
        self._frames = frame_order(size // PAGE_BYTES, seed)
        self._given = bytearray(size // PAGE_BYTES)
        self.resident = Resident(self._bytes, size // PAGE_BYTES)
        self.given = 0
        """How many frames have been handed out."""
        self.observers: list[Observer] = []
        self.bus = Bus()
        """Held by whoever calls anything here while CPUs run in threads."""

    def allocate(self) -> int:
        """Return the SPA of a free frame, filled with zeros as stored; raise `DramFullError`."""
        [spa] = self.allocate_pages(1)
        return spa

    def allocate_pages(self, count: int) -> list[int]:
        """Return the SPAs of so many free frames, as `allocate`; where there are fewer, none is taken."""
        if count > len(self._given) - self.given:
            raise DramFullError(
                f"DRAM: {self.given * PAGE_BYTES:#x} of {self.size:#x} bytes are in use, "
                f"{count * PAGE_BYTES:#x} more are needed"
            )
        numbers = self._frames.numbers(self.given, count)
        for number in numbers:
            self._given[number] = 1
            self.resident.enter(number)
        self.given += count
        self._check_room()
        return [self.base_spa + number * PAGE_BYTES for number in numbers]

    def has_given(self, frame: int) -> bool:
        """Whether that frame is there and has been handed out."""
        return frame < len(self._given) and bool(self._given[frame])

    def install_key(self, asid: int, key: bytes) -> None:
        """Give the memory controller the 16-byte `key` of `asid`."""
        self._keys[asid] = key

    def key(self, asid: int) -> bytes:
        """Return the key of `asid`, or raise `UnknownAsidError`."""
        try:
            return self._keys[asid]
        except KeyError:
            raise UnknownAsidError(f"ASID {asid:#x} has no key") from None

    def view_number(self, key: bytes | None) -> int:
        """The number of `key` in `views`."""
        number = self._view_of.get(key)
        if number is None:
            number = self._view_of[key] = len(self._key_of)
            self._key_of.append(key)
        return number

    def frame(self, spa: int) -> int:
        """The frame of `spa`, counted from the first of DRAM."""
        return (spa - self.base_spa) >> PAGE_SHIFT

    def own(self, spa: int, key: bytes | None) -> None:
        """Hold the page of `spa` as plaintext under `key`, or as raw bytes for None."""
        frame = (spa - self.base_spa) >> PAGE_SHIFT
        if self._view_of.get(key) == self.views[frame]:
            return
        if self.views[frame] & ASIDE:
            self._take_back(frame)
        if self._held(frame) != key:
            self._forget_translations(frame)
            place = self._page(frame)
            place[:] = self._converted(frame, bytes(place), key)
            self.views[frame] = self.view_number(key)

    def _converted(self, frame: int, page: bytes, key: bytes | None) -> bytes:
        """The `page` of `frame`, as it is held, as it is for another `key`."""
        address, held = self.base_spa + (frame << PAGE_SHIFT), self._held(frame)
        if held is not None:
            page = self._cipher(held).encrypt(page, address)
        return page if key is None else self._cipher(key).decrypt(page, address)

    def flush(self, spa: int, size: int) -> None:
        """Write back what caches hold of these bytes, and forget it; nothing to do where caches are coherent."""

    def flush_all(self) -> None:
        """Write back what caches hold of all memory, and forget it; nothing to do where caches are coherent."""

    def cached(self, _spa: int, _key: bytes) -> tuple[bytes, bytes] | None:
        """What caches have of the page of `spa` for `key`, and what DRAM held when they took it.

        None where that is what DRAM holds, as it always is where caches are coherent.
        """
        return None

    def cache(self, spa: int, _key: bytes, _copy: bytes, _filled: bytes) -> None:
        """Have caches hold that again; `ValueError` where they are coherent."""
        raise ValueError(f"caches of {self.part.name} are coherent: none holds {spa:#x} otherwise than DRAM")

    def read_private(self, asid: int, spa: int, size: int) -> bytes:
        """Return `size` bytes at `spa`, which may cross pages, decrypted under the key of `asid`."""
        return self._read(self.key(asid), spa, size)

    def read_pages(self, asid: int, spas: Sequence[int]) -> bytes:
        """The pages at `spas`, one after the other, decrypted under the key of `asid`."""
        return self._read_pages(self.key(asid), spas)

    def read_raw_pages(self, spas: Sequence[int]) -> bytes:
        """The pages at `spas`, one after the other, as DRAM holds them."""
        return self._read_pages(None, spas)

    def peek_pages(self, spas: Sequence[int]) -> bytes:
        """The raw bytes of the pages at `spas`, one after the other, without changing how they are held."""
        with self.bus:
            return b"".join([self.peek_raw(spa) for spa in spas])

    def write_private(self, asid: int, spa: int, data: bytes) -> None:
        """Store `data` at `spa`, encrypted under the key of `asid`."""
        self._write(self.key(asid), spa, data)

    def write_private_pages(self, asid: int, spas: Sequence[int], data: memoryview | bytes) -> None:
        """Store `data` in the pages at `spas`, one after the other, encrypted under the key of `asid`."""
        self._write_pages(self.key(asid), spas, data)

    def write_raw_pages(self, spas: Sequence[int], data: memoryview | bytes) -> None:
        """Store `data` in the pages at `spas`, one after the other, past all encryption."""
        self._write_pages(None, spas, data)

    def encrypt_pages(self, asid: int, spas: Sequence[int]) -> bytes:
        """Have the key of `asid` decrypt the pages at `spas` to what they hold as stored, and return that."""
        view = self.view_number(self.key(asid))
        with self.bus:
            data = self._read_pages(None, spas)
            for frame in map(self.frame, spas):
                if self.observers:
                    self._forget_translations(frame)
                    self.forget_code(self.base_spa + (frame << PAGE_SHIFT))
                self.views[frame] = view | self.views[frame] & ASIDE
        return data

    def read_raw(self, spa: int, size: int) -> bytes:
        """Return `size` bytes at `spa` as DRAM holds them."""
        return self._read(None, spa, size)

    def write_raw(self, spa: int, data: memoryview | bytes) -> None:
        """Store `data` at `spa` past all encryption."""
        self._write(None, spa, data)

    def peek_raw(self, spa: int) -> bytes:
        """Return the raw bytes of the page of `spa` without changing how it is held."""
        frame = self.frame(spa)
        page = self._content(frame)
        held = self._held(frame)
        return page if held is None else self._cipher(held).encrypt(page, spa & -PAGE_BYTES)

    def _read(self, key: bytes | None, spa: int, size: int) -> bytes:
        start = self._offset(spa, size)
        view = self.view_number(key)
        with self.bus:
            for frame in range(start >> PAGE_SHIFT, (start + size + PAGE_BYTES - 1) >> PAGE_SHIFT):
                if self.views[frame] != view:
                    self.own(self.base_spa + (frame << PAGE_SHIFT), key)
            return self._bytes[start : start + size]

    def _read_pages(self, key: bytes | None, spas: Sequence[int]) -> bytes:
        view = self.view_number(key)
        with self.bus:
            return b"".join([self._read_page(spa, key, view) for spa in spas])

    def _read_page(self, spa: int, key: bytes | None, view: int) -> bytes | memoryview:
        start = spa - self.base_spa
        frame = start >> PAGE_SHIFT
        if self.views[frame] == view | ASIDE:
            return self.resident.get(frame)
        if self.views[frame] != view:
            self.own(spa, key)
        return self.view[start : start + PAGE_BYTES]

    def _write(self, key: bytes | None, spa: int, data: memoryview | bytes) -> None:
        start = self._offset(spa, len(data))
        end = start + len(data)
        view = self.view_number(key)
        with self.bus:
            for frame in range(start >> PAGE_SHIFT, (end + PAGE_BYTES - 1) >> PAGE_SHIFT):
                if self.views[frame] != view:
                    page = frame << PAGE_SHIFT
                    if start <= page and page + PAGE_BYTES <= end:
                        self._replace(frame, key)
                    else:
                        self.own(self.base_spa + page, key)
                if self.executed[frame]:
                    self.forget_code(self.base_spa + (frame << PAGE_SHIFT))
            self.view[start:end] = data

    def _write_pages(self, key: bytes | None, spas: Sequence[int], data: memoryview | bytes) -> None:
        view = self.view_number(key)
        with self.bus:
            for at, spa in enumerate(spas):
                start = self._offset(spa, PAGE_BYTES)
                frame = start >> PAGE_SHIFT
                if self.views[frame] != view:
                    self._replace(frame, key)
                if self.executed[frame]:
                    self.forget_code(spa)
                self.view[start : start + PAGE_BYTES] = data[at * PAGE_BYTES : (at + 1) * PAGE_BYTES]

    def _replace(self, frame: int, key: bytes | None) -> None:
        """Make `frame` a page of `key` that is about to be overwritten whole: its old contents are not converted."""
        self._forget_translations(frame)
        if self.views[frame] & ASIDE:
            self._enter(frame)
        self.views[frame] = self.view_number(key)

    def _held(self, frame: int) -> bytes | None:
        return self._key_of[self.views[frame] & ~ASIDE]

    def _content(self, frame: int) -> bytes:
        """The bytes of `frame`, as it is held."""
        return self.resident.get(frame) if self.views[frame] & ASIDE else bytes(self._page(frame))

    def _enter(self, frame: int) -> None:
        self.resident.enter(frame)
        self._check_room()

    def _take_back(self, frame: int) -> None:
        """Have `frame` in memory again, however it is held."""
        for back in self.resident.take_back(frame, self._is_aside):
            self.views[back] &= ~ASIDE
        self._check_room()

    def _is_aside(self, frame: int) -> bool:
        return bool(self.views[frame] & ASIDE)

    def _check_room(self) -> None:
        """Have frames go where they are too many; not at once, for who has the bus may be at work on one of them."""
        if self.resident.is_over:
            self.bus.overdue = self._put_aside

    def _put_aside(self) -> None:
        """Have the oldest frames go; nobody is at work on any."""
        frames = self.resident.take_oldest(self.executed)
        for observer in self.observers:
            if any(observer.cached[frame] for frame in frames):
                observer.flush_translations()
        gone = self.resident.put(frames)
        for frame in gone:
            self.views[frame] |= ASIDE
        self.resident.drop(gone)

    def _forget_translations(self, frame: int) -> None:
        """Have every CPU that uses the page stop doing so, before it changes."""
        for observer in self.observers:
            if observer.cached[frame]:
                observer.flush_translations()

    def _page(self, frame: int) -> memoryview:
        start = self._offset(self.base_spa + (frame << PAGE_SHIFT), PAGE_BYTES)
        return self.view[start : start + PAGE_BYTES]

    def forget_code(self, spa: int) -> None:
        """Have every CPU read the instructions in the page of `spa` again."""
        frame = self.frame(spa)
        if self.executed[frame]:
            for observer in self.observers:
                if frame in observer.code:
                    observer.flush_code()

    def _offset(self, spa: int, size: int) -> int:
        start = spa - self.base_spa
        if start < 0 or start + size > self.size:
            raise ValueError(
                f"{size:#x} bytes at {spa:#x} are outside of DRAM {self.base_spa:#x}..{self.base_spa + self.size:#x}"
            )
        return start

    def _cipher(self, key: bytes) -> PageCipher:
        cipher = self._ciphers.get(key)
        if cipher is None:
            cipher = self._ciphers[key] = PageCipher(key, self.part.tweak_mode, self._tweaks)
        return cipher
