"""NIST's GCM validation vectors (GCMVS, gcmtestvectors): AES-256 with 96-bit IVs."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import pytest

from .kernels import Engine, make_key, seal, unseal


class Vector(NamedTuple):
    key: bytes
    iv: bytes
    aad: bytes
    plaintext: bytes
    ciphertext: bytes
    tag: bytes
    good: bool


@cache
def vectors(name: str) -> list[Vector]:
    """Those with a 96-bit IV; the tag may be shorter than 16 bytes."""
    text = files("cryptography_vectors").joinpath(f"ciphers/AES/GCM/{name}.rsp").read_text(encoding="ascii")
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w+) = ?(\w*)", block, re.MULTILINE))
        if "Count" in fields and len(fields["IV"]) == 24:
            key, iv, aad, plain, cipher, tag = (
                bytes.fromhex(fields.get(field, "")) for field in ("Key", "IV", "AAD", "PT", "CT", "Tag")
            )
            good = not re.search(r"^FAIL", block, re.MULTILINE)
            found.append(Vector(key, iv, aad, plain, cipher, tag, good))
    return found


@pytest.fixture(params=["native_engine", "wide_engine", "widest_engine"], ids=["native", "vaes", "zmm"])
def native(request: pytest.FixtureRequest) -> Engine:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Engine)
    return found


def test_seals_every_vector(native: Engine) -> None:
    assert len(vectors("gcmEncryptExtIV256")) == 2625
    for item in vectors("gcmEncryptExtIV256"):
        native.reset()
        sealed = seal(native, make_key(native, item.key), item.iv, item.aad, item.plaintext)
        assert sealed[: len(sealed) - 16 + len(item.tag)] == item.ciphertext + item.tag


def opens(engine: Engine, item: Vector, skew: int = 0) -> bool:
    """Whether the verdict on a vector is right, and the plaintext of a good one."""
    engine.reset()
    key = make_key(engine, item.key)
    found = unseal(engine, key, item.iv, item.aad, item.ciphertext + item.tag, skew=skew)
    return found == (item.plaintext if item.good else None)


def test_opens_every_vector_with_a_whole_tag(native: Engine) -> None:
    whole = [item for item in vectors("gcmDecrypt256") if len(item.tag) == 16]
    assert len(whole) == 375
    assert 100 < sum(item.good for item in whole) < 300
    assert all(opens(native, item) for item in whole)


@pytest.mark.parametrize("skew", range(16))
def test_at_every_alignment(engine: Engine, skew: int) -> None:
    """A sample with every combination of lengths in turn, at one alignment after the other."""
    for item in vectors("gcmEncryptExtIV256")[skew * 5 :: 105]:
        engine.reset()
        sealed = seal(engine, make_key(engine, item.key), item.iv, item.aad, item.plaintext, skew=skew)
        assert sealed[: len(sealed) - 16 + len(item.tag)] == item.ciphertext + item.tag
    whole = [item for item in vectors("gcmDecrypt256") if len(item.tag) == 16]
    assert all(opens(engine, item, skew) for item in whole[skew::15])
