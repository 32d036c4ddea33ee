"""CMAC-AES256 and the key derivation against published vectors and an independent implementation."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from mh_abi import abi

from .kernels import Engine, constants

KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
LABELS = tuple(str(value) for name, value in abi.assembler_symbols().items() if name.startswith("MH_KDF_LABEL_"))
CONTEXTS = (len(abi.mh_stream_context), 56, len(abi.mh_session_context))
"""Bytes: the shortest, that of random bytes (random.s), the longest."""


def expand(engine: Engine, key: bytes, skew: int = 0) -> int:
    schedule = engine.buffer(bytes(constants()["AES256_SCHEDULE_BYTES"]), skew // 16 * 16)
    engine.call("aes256_expand", schedule, engine.buffer(key, skew))
    return schedule


def cmac(engine: Engine, key: bytes, message: bytes, skew: int = 0) -> bytes:
    mac = engine.buffer(bytes(16), skew)
    engine.call("cmac256", expand(engine, key, skew), engine.buffer(message, skew), len(message), mac)
    return engine.read(mac, 16)


def template(label: bytes, context: bytes) -> bytes:
    return b"\xee" * 4 + label + b"\0" + context + b"\xee" * 4


@pytest.mark.parametrize(
    ("length", "mac"), [(16, "28a7023f452e8f82bd4bf28d8c37c35c"), (64, "e1992190549f6ed5696a2c056c315410")]
)
def test_published_cmac(engine: Engine, length: int, mac: str) -> None:
    """SP 800-38B, examples for AES-256 with complete blocks."""
    assert cmac(engine, KEY, MESSAGE[:length]).hex() == mac


def test_cmac_agrees_with_cryptography(engine: Engine) -> None:
    """Many keys: half of them make K1 with a carry, half without."""
    source = random.Random(1)
    for blocks in [*range(1, 20)] * 3:
        engine.reset()
        key, message = source.randbytes(32), source.randbytes(16 * blocks)
        oracle = CMAC(AES(key))
        oracle.update(message)
        assert cmac(engine, key, message, source.randrange(64)) == oracle.finalize(), blocks


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("length", [16, 32, 64])
@pytest.mark.parametrize("size", CONTEXTS)
def test_kdf_agrees_with_cryptography(engine: Engine, label: str, length: int, size: int) -> None:
    source = random.Random(length)
    encoded = label.encode("ascii")
    for _ in range(20):
        engine.reset()
        key, context = source.randbytes(32), source.randbytes(size)
        skew = source.randrange(64)
        result = engine.buffer(bytes(length), skew)
        fixed = engine.buffer(template(encoded, context), skew)
        engine.call("kdf256", expand(engine, key, skew), fixed, result, length, size)
        oracle = KBKDFCMAC(
            algorithm=AES,
            mode=Mode.CounterMode,
            length=length,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=encoded,
            context=context,
            fixed=None,
        )
        assert engine.read(result, length) == oracle.derive(key)


def test_input_layout_matches_the_abi() -> None:
    offsets = constants()
    room = offsets["kdf_input.context"] - offsets["kdf_input.label"]
    assert [len(label) + 1 for label in LABELS] == [room] * len(LABELS)
    assert len(set(LABELS)) == len(LABELS) == 6
    assert offsets["KDF_FRAME_BYTES"] == 4 + room + 4
    assert offsets["sizeof.kdf_input"] == offsets["KDF_FRAME_BYTES"] + max(CONTEXTS)
    assert {(offsets["KDF_FRAME_BYTES"] + size) % 16 for size in CONTEXTS} == {0}
