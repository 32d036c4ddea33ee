"""What the kernels promise about memory, time and remains, by the trace of every instruction and access."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from .kernels import Engine, Job, NativeWide, Outcome, Traced, constants, make_job, make_key, seal
from .test_kdf import LABELS, expand, template

LENGTHS = [(0, 0), (0, 64), (1, 1), (16, 20), (100, 130), (128, 0), (300, 64), (1024, 64)]


def accesses(engine: Traced, kind: str, address: int, count: int) -> Counter[int]:
    """How often each byte of a buffer was touched."""
    return Counter(
        place - address
        for what, start, size in engine.trace
        if what == kind
        for place in range(start, start + size)
        if address <= place < address + count
    )


def once(count: int) -> Counter[int]:
    return Counter(range(count))


def traced_job(engine: Traced, name: str, length: int, aad_length: int) -> Job:
    source = random.Random(length)
    key = make_key(engine, source.randbytes(32))
    job = make_job(engine, source.randbytes(12), source.randbytes(aad_length), source.randbytes(length), skew=7)
    engine.call(name, key, job.address)
    return job


@pytest.mark.parametrize(("length", "aad_length"), LENGTHS)
@pytest.mark.parametrize("name", ["gcm_seal", "gcm_open"])
def test_shared_bytes_are_touched_once(traced: Traced, name: str, length: int, aad_length: int) -> None:
    fields = traced_job(traced, name, length, aad_length).fields
    assert accesses(traced, "read", fields["source"], length) == once(length)
    assert accesses(traced, "write", fields["source"], length) == Counter()
    assert accesses(traced, "read", fields["destination"], length) == Counter()
    assert accesses(traced, "write", fields["destination"], length) == once(length)
    for field, count in (("iv", 12), ("aad", aad_length)):
        assert accesses(traced, "read", fields[field], count) == once(count)
        assert accesses(traced, "write", fields[field], count) == Counter()
    used, unused = ("write", "read") if name == "gcm_seal" else ("read", "write")
    assert accesses(traced, used, fields["tag"], 16) == once(16)
    assert accesses(traced, unused, fields["tag"], 16) == Counter()


@pytest.mark.parametrize(("length", "aad_length"), LENGTHS)
@pytest.mark.parametrize("name", ["gcm_seal", "gcm_open"])
def test_nothing_else_is_touched(traced: Traced, name: str, length: int, aad_length: int) -> None:
    """Beside its buffers a kernel touches the key and the job, which it only reads, its stack and its constants."""
    job = traced_job(traced, name, length, aad_length)
    sizes = {"iv": 12, "aad": aad_length, "source": length, "destination": length, "tag": 16}
    readable = [range(job.fields[field], job.fields[field] + size) for field, size in sizes.items()]
    writable = [*readable, range(traced.data, traced.data + 0x1000)]
    key = traced.data + 0x2000
    readable += [
        *writable,
        range(job.address, job.address + constants()["sizeof.gcm_job"]),
        range(key, key + constants()["GCM_KEY_BYTES"] + 64),
        range(traced.CODE, traced.CODE + len(traced.image)),
    ]
    for kind, address, size in traced.trace:
        allowed = writable if kind == "write" else readable
        assert any(address in area and address + size - 1 in area for area in allowed), (kind, hex(address))


def secret_run(engine: Engine, name: str, seed: int, length: int) -> Outcome:
    """A call whose key and data depend on `seed`, whose lengths and addresses do not."""
    engine.reset()
    source = random.Random(seed)
    key, iv, aad, data = (source.randbytes(count) for count in (32, 12, 64, length))
    if name == "aes256_expand":
        return engine.call(name, engine.buffer(bytes(240)), engine.buffer(key))
    if name == "gcm_key_init":
        return engine.call(name, engine.buffer(bytes(constants()["GCM_KEY_BYTES"])), engine.buffer(key))
    if name == "cmac256":
        return engine.call(name, expand(engine, key), engine.buffer(data), length, engine.buffer(bytes(16)))
    if name == "kdf256":
        fixed = engine.buffer(template(LABELS[0].encode("ascii"), source.randbytes(72)))
        return engine.call(name, expand(engine, key), fixed, engine.buffer(bytes(length)), length)
    address = make_key(engine, key)
    sealed = seal(engine, address, iv, aad, data)
    tag = sealed[-16:] if seed % 2 else source.randbytes(16)
    return engine.call(name, address, make_job(engine, iv, aad, sealed[:-16], tag).address)


SECRET_RUNS = [
    ("aes256_expand", 32),
    ("gcm_key_init", 32),
    ("cmac256", 96),
    ("kdf256", 16),
    ("kdf256", 32),
    *((name, length) for name in ("gcm_seal", "gcm_open") for length in (0, 5, 16, 128, 300, 4096)),
]


@pytest.mark.parametrize(("name", "length"), SECRET_RUNS)
def test_path_does_not_depend_on_secrets(traced: Traced, name: str, length: int) -> None:
    """The same instructions touch the same addresses whatever the key, the data and the verdict."""
    traces = []
    for seed in range(4 if length < 4096 else 2):
        secret_run(traced, name, seed, length)
        traces.append(list(traced.trace))
    assert len(traces[0]) > 50
    assert all(trace == traces[0] for trace in traces)


@pytest.mark.parametrize(("name", "length"), SECRET_RUNS)
def test_no_secret_is_left_behind(engine: Engine, name: str, length: int) -> None:
    """Whatever the secrets were, registers and stack look the same at return, and vector registers are zero."""
    outcomes = [secret_run(engine, name, seed, length) for seed in range(4)]
    remains = set()
    for outcome in outcomes:
        halves = [outcome.vector[at : at + 16] for at in range(0, len(outcome.vector), 16)]
        assert set(halves[:: engine.VECTOR_BYTES // 16]) == {bytes(16)}
        # Upper halves: all ones before the call, and kernels without VEX instructions cannot touch them.
        assert len(set(halves[1::2])) == 1
        general = {register: value for register, value in outcome.general.items() if register != "rax"}
        remains.add((outcome.stack, *general.values()))
    assert len(remains) == 1
    verdicts = [1, 0, 1, 0] if name == "gcm_open" else [outcomes[0].eax] * 4
    assert [outcome.eax for outcome in outcomes] == verdicts


def test_wipe_takes_the_upper_halves(wide_engine: NativeWide) -> None:
    """The probe fills all vector registers with ones before the call."""
    wide_engine.reset()
    assert wide_engine.call("gcm_vaes_wipe").vector == bytes(16 * wide_engine.VECTOR_BYTES)
