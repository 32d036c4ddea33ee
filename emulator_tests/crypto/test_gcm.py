"""AES-256-GCM against published vectors and an independent implementation."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .kernels import Engine, constants, make_key, matches, seal, unseal

KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308") * 2
IV = bytes.fromhex("cafebabefacedbaddecaf888")
PLAINTEXT = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
CIPHERTEXT = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
AAD = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")

# Cases 13 to 16 of "The Galois/Counter Mode of Operation", appendix B: key, IV, plaintext, AAD, ciphertext, tag.
PUBLISHED = {
    13: (bytes(32), bytes(12), b"", b"", b"", "530f8afbc74536b9a963b4f1c4cb738b"),
    14: (
        bytes(32),
        bytes(12),
        bytes(16),
        b"",
        bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18"),
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    15: (KEY, IV, PLAINTEXT, b"", CIPHERTEXT, "b094dac5d93471bdec1a502270e3cc6c"),
    16: (KEY, IV, PLAINTEXT[:60], AAD, CIPHERTEXT[:60], "76fc6ece0f4e1768cddf8853bb2d551b"),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_vector(engine: Engine, case: int) -> None:
    key, iv, plaintext, aad, ciphertext, tag = PUBLISHED[case]
    address = make_key(engine, key)
    sealed = ciphertext + bytes.fromhex(tag)
    assert seal(engine, address, iv, aad, plaintext) == sealed
    assert unseal(engine, address, iv, aad, sealed) == plaintext


def test_published_schedule(engine: Engine) -> None:
    """FIPS 197 A.3, the first and the last round key that are computed."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    schedule = engine.buffer(bytes(constants()["AES256_SCHEDULE_BYTES"]), 5)
    engine.call("aes256_expand", schedule, engine.buffer(key, 3))
    assert engine.read(schedule, 32) == key
    assert engine.read(schedule + 32, 16).hex() == "9ba354118e6925afa51a8b5f2067fcde"
    assert engine.read(schedule + 224, 16).hex() == "fe4890d1e6188d0b046df344706c631e"


# Every length up to 300 bytes, some up to three steps of 512, and the page; the AAD walks through 0..100, and skews.
@pytest.mark.parametrize("part", range(4))
def test_agrees_with_cryptography(engine: Engine, part: int) -> None:
    source = random.Random(part)
    for length in [*range(part, 301, 4), *range(301 + 7 * part, 1537, 31), 512, 1024, 4096 - part, 4096, 4096 + part]:
        engine.reset()
        key, iv = source.randbytes(32), source.randbytes(12)
        plaintext, aad = source.randbytes(length), source.randbytes(source.randrange(101))
        sealed = AESGCM(key).encrypt(iv, plaintext, aad)
        address = make_key(engine, key, source.randrange(64))
        assert seal(engine, address, iv, aad, plaintext, skew=source.randrange(64)) == sealed, (length, len(aad))
        assert unseal(engine, address, iv, aad, sealed, skew=source.randrange(64)) == plaintext, (length, len(aad))
        assert matches(engine, address, iv, aad, plaintext, sealed[-16:], skew=source.randrange(64)) == 0, length


@pytest.mark.parametrize("length", [0, 16, 5, 200])
def test_every_aad_length(engine: Engine, length: int) -> None:
    source = random.Random(length)
    key, plaintext = source.randbytes(32), source.randbytes(length)
    for aad_length in [*range(101), *range(110, 150), 255, 256, 257, 300, 1000]:
        engine.reset()
        iv, aad = source.randbytes(12), source.randbytes(aad_length)
        address = make_key(engine, key)
        sealed = AESGCM(key).encrypt(iv, plaintext, aad)
        assert seal(engine, address, iv, aad, plaintext, skew=aad_length % 64) == sealed, aad_length
        assert unseal(engine, address, iv, aad, sealed, skew=aad_length % 64) == plaintext, aad_length


@pytest.mark.parametrize("length", [16, 133, 300])
def test_every_flipped_byte_is_refused(engine: Engine, length: int) -> None:
    source = random.Random(length)
    key, iv = source.randbytes(32), source.randbytes(12)
    plaintext, aad = source.randbytes(length), source.randbytes(33)
    sealed = AESGCM(key).encrypt(iv, plaintext, aad)
    message = iv + aad + sealed
    address = make_key(engine, key)
    assert unseal(engine, address, iv, aad, sealed) == plaintext
    for position in range(len(message)):
        engine.reset()
        address = make_key(engine, key)
        broken = bytearray(message)
        broken[position] ^= 1 << source.randrange(8)
        found = unseal(engine, address, bytes(broken[:12]), bytes(broken[12:45]), bytes(broken[45:]))
        assert found is None, position


def test_every_bit_of_the_tag_counts(engine: Engine) -> None:
    sealed = AESGCM(KEY).encrypt(IV, PLAINTEXT, AAD)
    for bit in range(128):
        engine.reset()
        broken = sealed[:-16] + (int.from_bytes(sealed[-16:], "little") ^ 1 << bit).to_bytes(16, "little")
        assert unseal(engine, make_key(engine, KEY), IV, AAD, broken) is None, bit


@pytest.mark.parametrize("length", [16, 133, 300])
def test_every_changed_byte_matches_no_more(engine: Engine, length: int) -> None:
    source = random.Random(length)
    key, iv = source.randbytes(32), source.randbytes(12)
    plaintext, aad = source.randbytes(length), source.randbytes(33)
    message = iv + aad + plaintext + AESGCM(key).encrypt(iv, plaintext, aad)[-16:]
    for position in range(len(message)):
        engine.reset()
        changed = bytearray(message)
        changed[position] ^= 1 << source.randrange(8)
        parts = bytes(changed[:12]), bytes(changed[12:45]), bytes(changed[45:-16]), bytes(changed[-16:])
        assert matches(engine, make_key(engine, key), *parts) == 1, position
