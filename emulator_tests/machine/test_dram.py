"""Memory encryption as the parts do it, without a CPU."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mh_builder.asm.native import is_possible
from mh_builder.parts import PARTS
from mh_emulator.dram.cipher import Tweaks
from mh_emulator.dram.dram import Dram, DramFullError, UnknownAsidError
from mh_emulator.dram.process import UserMemory

PAGE = 0x1000
BASE = 0x12_3400_0000
KEY, OTHER_KEY = bytes(range(16)), bytes(range(1, 17))
XEX_PARTS = ["rome", "milan", "genoa"]


def dram(part: str = "milan", seed: int = 1, size: int = 1 << 20) -> Dram:
    memory = Dram(size, BASE, PARTS[part], seed)
    memory.install_key(7, KEY)
    return memory


def pattern(page: int, size: int = PAGE) -> bytes:
    return b"".join((page * 1_000_003 + n).to_bytes(8, "little") for n in range(size // 8))


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def ecb(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305


def inverse(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).decryptor().update(block)  # noqa: S305


@pytest.mark.skipif(not is_possible(), reason="needs x86-64 Linux, or Python mixes all")
@pytest.mark.parametrize("address", [0, BASE, BASE + 5 * PAGE, 0xF_FFFF_FFFF_F000])
def test_native_mix_is_that_of_python(address: int) -> None:
    tweaks = Tweaks(random.Random(3))
    assert tweaks.mix != tweaks.mix_slowly
    page = pattern(address % 251)
    mixed = tweaks.mix(page, address)
    assert mixed == tweaks.mix_slowly(page, address)
    blocks = range(0, PAGE, 16)
    assert xor(mixed, page) == b"".join(tweaks.block(address + n).to_bytes(16, "little") for n in blocks)
    with pytest.raises(ValueError, match="^a page of 0x10 bytes, 0x1000 are needed$"):
        tweaks.mix(bytes(16), address)


@pytest.mark.parametrize("part", PARTS)
def test_private_data_reads_back_and_raw_bytes_show_none_of_it(part: str) -> None:
    memory = dram(part)
    data = pattern(1, 2 * PAGE)
    memory.write_private(7, BASE + 0x800, data)
    raw = memory.read_raw(BASE + 0x800, len(data))
    assert not any(data[n : n + 16] in raw for n in range(0, len(data), 16))
    assert memory.read_private(7, BASE + 0x800, len(data)) == data


@pytest.mark.parametrize("part", PARTS)
def test_same_plaintext_at_same_address_gives_same_ciphertext(part: str) -> None:
    memory = dram(part)
    memory.write_private(7, BASE, pattern(1))
    first = memory.read_raw(BASE, PAGE)
    memory.write_private(7, BASE, pattern(2))
    assert memory.read_raw(BASE, PAGE) != first
    memory.write_private(7, BASE, pattern(1))
    assert memory.read_raw(BASE, PAGE) == first


@pytest.mark.parametrize("part", PARTS)
def test_equal_blocks_have_different_ciphertext_everywhere(part: str) -> None:
    memory = dram(part)
    memory.write_private(7, BASE, bytes(4 * PAGE))
    raw = memory.read_raw(BASE, 4 * PAGE)
    assert len({raw[n : n + 16] for n in range(0, len(raw), 16)}) == 4 * PAGE // 16


def test_first_generation_is_the_block_cipher_of_data_and_a_linear_tweak() -> None:
    memory = dram("naples")
    data = pattern(3, 4 * PAGE)
    memory.write_private(7, BASE, data)
    raw = memory.read_raw(BASE, len(data))
    tweaks = {n: xor(inverse(KEY, raw[n : n + 16]), data[n : n + 16]) for n in range(0, len(raw), 16)}
    # T is an XOR over address bits: it is linear, so T(a) ^ T(b) ^ T(c) = T(a ^ b ^ c).
    for a, b, c in ((0x10, 0x20, 0x40), (0x1000, 0x2000, 0x10), (0x3FF0, 0x1230, 0x2AB0)):
        assert xor(xor(tweaks[a], tweaks[b]), tweaks[c]) == tweaks[a ^ b ^ c]


@pytest.mark.parametrize("part", XEX_PARTS)
def test_later_generations_apply_the_tweak_on_both_sides(part: str) -> None:
    # The naples machine of the same boot has the same tweaks, and shows them.
    plain, first = pattern(3), dram("naples")
    first.write_private(7, BASE, plain)
    tweaks = xor(inverse(KEY, first.read_raw(BASE, PAGE)), plain)
    memory = dram(part)
    memory.write_private(7, BASE, plain)
    assert memory.read_raw(BASE, PAGE) == xor(ecb(KEY, xor(plain, tweaks)), tweaks)


@pytest.mark.parametrize("part", XEX_PARTS)
def test_moved_ciphertext_becomes_garbage(part: str) -> None:
    memory = dram(part)
    memory.write_private(7, BASE, pattern(1))
    memory.write_raw(BASE + PAGE, memory.read_raw(BASE, PAGE))
    moved = memory.read_private(7, BASE + PAGE, PAGE)
    differences = {xor(moved[n : n + 16], pattern(1)[n : n + 16]) for n in range(0, PAGE, 16)}
    assert len(differences) == PAGE // 16


def test_moved_ciphertext_on_the_first_generation_differs_by_both_tweaks_only() -> None:
    memory = dram("naples")
    memory.write_private(7, BASE, pattern(1))
    memory.write_raw(BASE + PAGE, memory.read_raw(BASE, PAGE))
    moved = memory.read_private(7, BASE + PAGE, PAGE)
    differences = {xor(moved[n : n + 16], pattern(1)[n : n + 16]) for n in range(0, PAGE, 16)}
    assert len(differences) == 1
    assert differences != {bytes(16)}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("offset", "size"), [(0, 1), (15, 1), (15, 2), (0x123, 40), (0xFF8, 16), (0x1000, 16)])
def test_a_raw_write_corrupts_exactly_the_blocks_it_touches(part: str, offset: int, size: int) -> None:
    memory = dram(part)
    data = pattern(1, 2 * PAGE)
    memory.write_private(7, BASE, data)
    changed = xor(memory.read_raw(BASE + offset, size), b"\xff" * size)
    memory.write_raw(BASE + offset, changed)
    seen = memory.read_private(7, BASE, len(data))
    wrong = {n // 16 for n in range(0, len(data), 16) if seen[n : n + 16] != data[n : n + 16]}
    assert wrong == set(range(offset // 16, (offset + size - 1) // 16 + 1))


def test_a_private_write_changes_exactly_the_raw_blocks_it_touches() -> None:
    memory = dram()
    memory.write_raw(BASE, pattern(1))
    memory.write_private(7, BASE + 0x108, b"\xa5" * 16)
    seen = memory.read_raw(BASE, PAGE)
    wrong = {n // 16 for n in range(0, PAGE, 16) if seen[n : n + 16] != pattern(1)[n : n + 16]}
    assert wrong == {0x10, 0x11}


def test_another_key_sees_garbage_and_the_same_key_under_another_asid_does_not() -> None:
    memory = dram()
    memory.install_key(8, OTHER_KEY)
    memory.install_key(9, KEY)
    memory.write_private(7, BASE, pattern(1))
    garbage = memory.read_private(8, BASE, PAGE)
    assert not any(garbage[n : n + 16] == pattern(1)[n : n + 16] for n in range(0, PAGE, 16))
    assert memory.read_private(9, BASE, PAGE) == pattern(1)


def test_another_boot_encrypts_differently() -> None:
    first, second = dram(seed=1), dram(seed=2)
    for memory in (first, second):
        memory.write_private(7, BASE, pattern(1))
    assert first.read_raw(BASE, PAGE) != second.read_raw(BASE, PAGE)
    second.write_raw(BASE, first.read_raw(BASE, PAGE))
    assert second.read_private(7, BASE, 16) != pattern(1)[:16]


def test_peeking_gives_the_raw_bytes_and_leaves_the_view() -> None:
    memory = dram()
    memory.write_private(7, BASE, pattern(1))
    peeked = memory.peek_raw(BASE + 0x123)
    assert memory.view[:PAGE] == pattern(1)
    assert peeked == memory.read_raw(BASE, PAGE)
    assert peeked == memory.peek_raw(BASE)


def test_without_a_key_an_asid_reads_nothing() -> None:
    with pytest.raises(UnknownAsidError, match="ASID 0x8"):
        dram().read_private(8, BASE, 16)


def test_frames_are_distinct_scattered_and_the_same_in_every_run() -> None:
    size = 100 * PAGE
    frames = [dram(size=size).allocate() for _ in range(2)]
    assert frames[0] == frames[1]
    memory = dram(size=size)
    every = [memory.allocate() for _ in range(100)]
    assert sorted(every) == list(range(BASE, BASE + size, PAGE))
    neighbours = sum(abs(a - b) == PAGE for a, b in pairwise(every))
    assert neighbours < 15
    with pytest.raises(DramFullError, match="0x64000 bytes are in use, 0x1000 more"):
        memory.allocate()


def test_another_seed_scatters_differently() -> None:
    assert dram(seed=1).allocate() != dram(seed=2).allocate()


@pytest.mark.parametrize(("spa", "size"), [(BASE - 1, 2), (BASE + (1 << 20) - 1, 2), (0, 1)])
def test_addresses_outside_are_refused(spa: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside of DRAM"):
        dram().read_raw(spa, size)


def test_dram_must_fit_the_address_bits_that_encryption_leaves() -> None:
    with pytest.raises(ValueError, match="43 bits of milan"):
        Dram(PAGE, 1 << 43, PARTS["milan"], 1)
    assert Dram(PAGE, 1 << 43, PARTS["genoa"], 1).size == PAGE


def test_user_memory_gets_frames_on_first_touch() -> None:
    memory = UserMemory(dram(), 8 * PAGE)
    assert memory.populated() == []
    memory.write_raw(3 * PAGE - 4, b"12345678")
    assert memory.populated() == [2 * PAGE, 3 * PAGE]
    assert memory.read_raw(3 * PAGE - 4, 8) == b"12345678"
    assert memory.spa(3 * PAGE) - memory.spa(2 * PAGE) != PAGE
    with pytest.raises(ValueError, match="outside of a mapping of 0x8000"):
        memory.spa(8 * PAGE)
    with pytest.raises(ValueError, match="4 KiB"):
        UserMemory(dram(), 5)


@pytest.mark.parametrize(("part", "window"), [("naples", 42), ("rome", 42), ("milan", 42), ("genoa", 45)])
def test_window_bit_of_every_part(part: str, window: int) -> None:
    assert PARTS[part].window_bit == window


@pytest.mark.parametrize("part", ["naples", "rome", "milan"])
def test_pages_that_are_encrypted_in_place(part: str) -> None:
    """As if they had been read as stored and written under the key, whatever view they were held under."""
    memory, expected = dram(part), dram(part)
    memory.install_key(8, OTHER_KEY)
    expected.install_key(8, OTHER_KEY)
    spas = memory.allocate_pages(3)
    for one in (memory, expected):
        one.write_raw(spas[0], pattern(1))
        one.write_private(8, spas[1], pattern(2))
        one.flush(spas[1], PAGE)
    stored = expected.read_raw_pages(spas)
    expected.write_private_pages(7, spas, stored)
    for spa in spas:
        expected.flush(spa, PAGE)
    assert memory.encrypt_pages(7, spas) == stored
    assert stored[2 * PAGE :] == bytes(PAGE)
    assert memory.read_pages(7, spas) == stored
    assert memory.peek_pages(spas) == expected.peek_pages(spas) != stored


def test_where_too_few_frames_are_left_none_is_taken() -> None:
    memory = dram(size=4 * PAGE)
    first = memory.allocate_pages(3)
    with pytest.raises(DramFullError, match="^DRAM: 0x3000 of 0x4000 bytes are in use, 0x2000 more are needed$"):
        memory.allocate_pages(2)
    assert sorted([*first, memory.allocate()]) == [BASE + PAGE * n for n in range(4)]


def test_zeros_in_pages_that_somebody_has_touched() -> None:
    """And in those that nobody has, which have them already."""
    memory = UserMemory(dram(), 4 * PAGE)
    memory.write_raw(PAGE, pattern(1))
    memory.write_raw(0, bytes(2 * PAGE) + pattern(2))
    assert memory.read_raw(0, 3 * PAGE) == bytes(2 * PAGE) + pattern(2)
    assert memory.populated() == [0, PAGE, 2 * PAGE]
    memory.clear(PAGE + 8, PAGE)
    assert memory.read_raw(0, 4 * PAGE) == bytes(2 * PAGE + 8) + pattern(2)[8:] + bytes(PAGE)


def test_machines_of_one_seed_have_frames_of_their_own() -> None:
    """The order in which they come is computed once; what one machine has taken the other still has."""
    first, second = dram(seed=77), dram(seed=77)
    taken = [first.allocate() for _ in range(5)]
    assert second.allocate_pages(5) == taken
    second.write_raw(taken[0], pattern(3))
    assert first.read_raw(taken[0], PAGE) == bytes(PAGE)
