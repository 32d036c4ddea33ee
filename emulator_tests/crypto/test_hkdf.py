"""HKDF with SHA-256 of a helper for SNP, against an independent implementation; and what it does with secrets."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from emulator_tests.attest.machine import image_for
from mh_builder.image.model import Image

from .kernels import MASK, STACK_BYTES, Outcome, Traced

Inputs = tuple[bytes, bytes, bytes]


class SnpTraced(Traced):
    """Of the only build that has HKDF."""

    def built(self) -> Image:
        return image_for()


@pytest.fixture(scope="module")
def snp() -> SnpTraced:
    return SnpTraced()


def call(engine: SnpTraced, inputs: Inputs, skew: int = 0) -> tuple[bytes, Outcome]:
    """The key of secret, salt and info."""
    engine.reset()
    result = engine.buffer(b"\xee" * 32, skew)
    places = [engine.buffer(value, skew * 3 % 64) for value in inputs]
    outcome = engine.call("hkdf256", result, *places)
    assert [engine.read(place, len(value)) for place, value in zip(places, inputs, strict=True)] == list(inputs)
    return engine.read(result, 32), outcome


def drawn(seed: int) -> Inputs:
    source = random.Random(seed)
    return source.randbytes(32), source.randbytes(16), source.randbytes(64)


def test_agrees_with_cryptography(snp: SnpTraced) -> None:
    extremes = [(byte * 32, byte * 16, byte * 64) for byte in (b"\0", b"\xff", b"\x36", b"\x5c")]
    for number, inputs in enumerate([*extremes, *map(drawn, range(30))]):
        secret, salt, info = inputs
        assert call(snp, inputs, number)[0] == HKDF(SHA256(), 32, salt, info).derive(secret)


SALT, INFO = drawn(0)[1:]
SECRETS = [bytes(32), b"\xff" * 32, drawn(1)[0], drawn(2)[0]]


def test_path_does_not_depend_on_secrets(snp: SnpTraced) -> None:
    traces = []
    for secret in SECRETS:
        call(snp, (secret, SALT, INFO))
        traces.append(snp.trace[:])
    assert len(traces[0]) > 10_000
    assert all(trace == traces[0] for trace in traces[1:]), "another path"


def test_no_secret_is_left_behind(snp: SnpTraced) -> None:
    """Registers and stack look the same at return, whatever the secret was."""
    remains = set()
    for secret in SECRETS:
        _, outcome = call(snp, (secret, SALT, INFO))
        remains.add((outcome.stack, outcome.vector, tuple(outcome.general.values())))
    assert len(remains) == 1
    ((_, vector, _),) = remains
    assert MASK not in vector


def test_only_the_key_is_written_beside_the_stack(snp: SnpTraced) -> None:
    call(snp, drawn(3))
    stack = range(snp.data, snp.data + STACK_BYTES)
    written = [(at, size) for kind, at, size in snp.trace if kind == "write" and at not in stack]
    assert [(at - written[0][0], size) for at, size in written] == [(0, 8), (8, 8), (16, 8), (24, 8)]
