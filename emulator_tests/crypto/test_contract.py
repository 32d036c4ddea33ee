"""What the kernels promise about memory, time and remains, by the trace of every instruction and access."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from .kernels import (
    HEAP_OFFSET,
    PRESERVED,
    STACK_BYTES,
    STACK_PAINT,
    UNTOUCHED,
    Engine,
    Job,
    NativeWide,
    NativeWidest,
    Outcome,
    Traced,
    constants,
    make_job,
    make_key,
    masks,
    seal,
)
from .test_kdf import CONTEXTS, LABELS, expand, template

LENGTHS = [(0, 0), (0, 64), (1, 1), (16, 20), (100, 130), (128, 0), (300, 64), (1024, 64)]
CALL, PUSH_RBX = b"\xe8", b"\x53"
SET_BYTES = 128
"""What gcm_open takes at once."""
PROBE_BYTES = 16  # at the top of the stack: what probe.s keeps there for itself
JOBS = ("gcm_seal", "gcm_open", "gcm_matches")


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
    """A call that succeeds: the trace of gcm_open has both passes."""
    source = random.Random(length)
    key = make_key(engine, source.randbytes(32))
    iv, aad, plaintext = source.randbytes(12), source.randbytes(aad_length), source.randbytes(length)
    sealed = seal(engine, key, iv, aad, plaintext)
    taken = sealed[:-16] if name == "gcm_open" else plaintext
    job = make_job(engine, iv, aad, taken, sealed[-16:], skew=7)
    assert engine.call(name, key, job.address).eax == 0
    assert {kind for kind, _, _ in engine.trace} == {"run", "read", "write"}
    return job


@pytest.mark.parametrize(("length", "aad_length"), LENGTHS)
@pytest.mark.parametrize("name", JOBS)
def test_shared_bytes_are_touched_once(traced: Traced, name: str, length: int, aad_length: int) -> None:
    """Every byte of a buffer is read or written once or never; but the scratch is private."""
    fields = traced_job(traced, name, length, aad_length).fields
    sizes = {"iv": 12, "aad": aad_length, "source": length, "destination": length, "tag": 16}
    read = {"iv", "aad", "source"} | {"gcm_seal": set(), "gcm_open": {"tag"}, "gcm_matches": {"tag"}}[name]
    written = {"gcm_seal": {"destination", "tag"}, "gcm_open": {"destination"}, "gcm_matches": set()}[name]
    for field, size in sizes.items():
        expected = once(size) if field in read else Counter[int]()
        assert accesses(traced, "read", fields[field], size) == expected, field
        expected = once(size) if field in written else Counter[int]()
        assert accesses(traced, "write", fields[field], size) == expected, field


@pytest.mark.parametrize("length", [0, 5, 16, 128, 300, 1024, 4096])
@pytest.mark.parametrize("wrong", [False, True])
def test_the_scratch_never_had_anything_but_masked_blocks(traced: Traced, length: int, *, wrong: bool) -> None:
    """Whole sets first as they came, then as plaintext, the rest as plaintext, each under its own mask."""
    source = random.Random(length)
    key, iv, aad, plaintext = (
        make_key(traced, source.randbytes(32)),
        *(source.randbytes(count) for count in (12, 64, length)),
    )
    sealed = seal(traced, key, iv, aad, plaintext)
    tag = bytes(16) if wrong else sealed[-16:]
    job = make_job(traced, iv, aad, sealed[:-16], tag)
    assert traced.call("gcm_open", key, job.address).eax == int(wrong)
    hidden = masks(traced, key)
    taken, waiting = hidden.taken(sealed[:-16]), hidden.waiting(iv, sealed[:-16])
    scratch = job.fields["scratch"]
    seen: list[list[bytes]] = [[] for _ in range(length)]
    for address, data in traced.written:
        for place, byte in enumerate(data, address - scratch):
            if 0 <= place < length:
                seen[place].append(bytes([byte]))
    whole = length - length % SET_BYTES
    expected = [[taken[at : at + 1]] * (at < whole) + [waiting[at : at + 1]] for at in range(length)]
    assert seen == expected
    reads = accesses(traced, "read", scratch, length)
    assert reads == Counter({at: (at < whole) + (not wrong) for at in range(length)}) + Counter()


@pytest.mark.parametrize("length", [0, 5, 256, 300, 4096])
def test_the_passes_of_opening(traced: Traced, length: int) -> None:
    """All of the source is read, and the tag, before anything of the destination is written."""
    fields = traced_job(traced, "gcm_open", length, 64).fields
    destination = range(fields["destination"], fields["destination"] + max(length, 1))
    writes = [at for at, (kind, place, _) in enumerate(traced.trace) if kind == "write" and place in destination]
    shared = [
        range(fields[field], fields[field] + size) for field, size in (("aad", 64), ("source", length), ("tag", 16))
    ]
    reads = [
        at
        for at, (kind, place, _) in enumerate(traced.trace)
        if kind == "read" and any(place in buffer for buffer in shared)
    ]
    assert len(writes) >= length / 16
    assert all(max(reads) < at for at in writes)


@pytest.mark.parametrize(("length", "aad_length"), LENGTHS)
@pytest.mark.parametrize("name", JOBS)
def test_nothing_else_is_touched(traced: Traced, name: str, length: int, aad_length: int) -> None:
    """Beside its buffers a kernel touches the key and the job, which it only reads, its stack and its constants."""
    job = traced_job(traced, name, length, aad_length)
    sizes = {"iv": 12, "aad": aad_length, "source": length, "destination": length, "tag": 16, "scratch": length}
    readable = [range(job.fields[field], job.fields[field] + size) for field, size in sizes.items()]
    writable = [*readable, range(traced.data, traced.data + STACK_BYTES)]
    key = traced.data + HEAP_OFFSET
    readable += [
        *writable,
        range(job.address, job.address + constants()["sizeof.gcm_job"]),
        range(key, key + constants()["sizeof.gcm_key"] + 64),
        range(traced.CODE, traced.CODE + len(traced.image)),
    ]
    for kind, address, size in traced.trace:
        allowed = writable if kind == "write" else readable
        assert any(address in area and address + size - 1 in area for area in allowed), (kind, hex(address))


@pytest.mark.parametrize("length", [0, 5, 16, 100, 128, 300, 4096])
@pytest.mark.parametrize("name", JOBS)
def test_the_stack_has_nothing_of_the_data(engine: Engine, name: str, length: int) -> None:
    """Every word that a kernel left on its painted stack is an address of code, or a register of the caller."""
    secret_run(engine, name, 1, length)
    outcome = secret_run(engine, name, 1, length)
    stack = outcome.stack[:-PROBE_BYTES]
    words = struct.unpack(f"<{len(stack) // 8}Q", stack)
    used = {word for word in words if word != int.from_bytes(STACK_PAINT * 8, "little")}
    assert used
    code = range(engine.code, engine.code + len(engine.image))
    assert all(word in code or word in PRESERVED.values() for word in used)


@pytest.mark.parametrize("length", [0, 5, 100, 300, 4096])
@pytest.mark.parametrize("name", JOBS)
def test_the_stack_never_had_anything_else(traced: Traced, name: str, length: int) -> None:
    """Every write to the stack, while the kernel ran, is that of a call, or saves a register of the caller at once."""
    traced_job(traced, name, length, 64)
    stack = range(traced.data, traced.data + STACK_BYTES)
    writes = [at for at, (kind, place, _) in enumerate(traced.trace) if kind == "write" and place in stack]
    assert writes
    for at in writes:
        ran = next(entry for entry in reversed(traced.trace[:at]) if entry[0] == "run")
        assert traced.read(ran[1], 1) in {CALL, PUSH_RBX}, hex(ran[1])


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("length", [0, 5, 300])
def test_a_key_that_is_not_whole_is_refused(engine: Engine, name: str, length: int) -> None:
    """A wiped key, one that was never made, one that lacks its last part, and one with any byte changed."""
    good = key_of(engine, bytes(range(32)))
    unfinished = good[: constants()["gcm_key.check"]] + bytes(16) + good[constants()["gcm_key.powers"] :]
    for key in (bytes(len(good)), b"\xff" * len(good), unfinished, *damaged(good)):
        engine.reset()
        features = constants()["gcm_key.features"]
        address = engine.buffer(key[:features] + good[features:])
        contents = {"source": bytes(length), "destination": UNTOUCHED * length, "tag": bytes(16)}
        job = make_job(engine, bytes(12), bytes(64), bytes(length))
        scratch = job.read("scratch", length)
        outcome = engine.call(name, address, job.address)
        assert outcome.eax == 2
        assert {vector[:16] for vector in outcome.vectors(engine.VECTOR_BYTES)[:16]} == {bytes(16)}
        assert {field: job.read(field, len(data)) for field, data in contents.items()} == contents
        assert job.read("scratch", length) == scratch


@pytest.mark.parametrize("name", JOBS)
def test_a_refusal_reads_nothing_but_the_key(traced: Traced, name: str) -> None:
    address = traced.buffer(bytes(constants()["sizeof.gcm_key"]))
    job = make_job(traced, bytes(12), bytes(64), bytes(300))
    assert traced.call(name, address, job.address).eax == 2
    assert accesses(traced, "read", address + constants()["gcm_key.check"], 16)
    fields = job.fields
    for field, size in (("iv", 12), ("aad", 64), ("source", 300), ("destination", 300), ("tag", 16), ("scratch", 300)):
        assert accesses(traced, "read", fields[field], size) == Counter()
        assert accesses(traced, "write", fields[field], size) == Counter()


def test_the_check_is_written_last(traced: Traced) -> None:
    address = make_key(traced, bytes(range(32)))
    check = address + constants()["gcm_key.check"]
    written = [
        byte
        for kind, place, size in traced.trace
        if kind == "write" and place >= address
        for byte in range(place, place + size)
    ]
    assert written[-16:] == list(range(check, check + 16))
    assert not set(written[:-16]) & set(written[-16:])
    assert traced.read(check, 16) == Cipher(AES(bytes(range(32))), ECB()).encryptor().update(bytes(16))  # noqa: S305 - CIPH(0)


def key_of(engine: Engine, key: bytes) -> bytes:
    return engine.read(make_key(engine, key), constants()["sizeof.gcm_key"])


def damaged(key: bytes) -> Iterator[bytes]:
    """The key with one bit of each byte changed, of the schedule and the check."""
    chance = random.Random(1)
    for position in range(constants()["gcm_key.powers"]):
        yield key[:position] + bytes([key[position] ^ 1 << chance.randrange(8)]) + key[position + 1 :]


@pytest.mark.parametrize("length", [5, 128, 300, 4096])
def test_every_mask_gives_the_plaintext(engine: Engine, length: int) -> None:
    source = random.Random(length)
    for mask in (bytes(16), b"\xff" * 16, source.randbytes(16)):
        engine.reset()
        key, plaintext = make_key(engine, bytes(range(32))), source.randbytes(length)
        sealed = seal(engine, key, bytes(12), b"", plaintext)
        job = make_job(engine, bytes(12), b"", sealed[:-16], sealed[-16:])
        assert engine.call("gcm_open", key, job.address, vector=mask).eax == 0
        assert job.read("scratch", length) == masks(engine, key, mask).waiting(bytes(12), sealed[:-16])
        assert job.read("destination", length) == plaintext


def secret_run(engine: Engine, name: str, seed: int, length: int, *, wrong: bool = False) -> Outcome:
    """A call whose key, data and mask depend on `seed`, whose lengths and addresses do not."""
    engine.reset()
    source = random.Random(seed)
    key, iv, aad, data = (source.randbytes(count) for count in (32, 12, 64, length))
    if name == "aes256_expand":
        return engine.call(name, engine.buffer(bytes(240)), engine.buffer(key))
    if name == "gcm_key_init":
        return engine.call(name, engine.buffer(bytes(constants()["sizeof.gcm_key"])), engine.buffer(key))
    if name == "cmac256":
        return engine.call(name, expand(engine, key), engine.buffer(data), length, engine.buffer(bytes(16)))
    if name == "kdf256":
        context = source.randbytes(CONTEXTS[-1])
        fixed = engine.buffer(template(LABELS[0].encode("ascii"), context))
        return engine.call(name, expand(engine, key), fixed, engine.buffer(bytes(length)), length, len(context))
    address = make_key(engine, key)
    sealed = seal(engine, address, iv, aad, data)
    tag = source.randbytes(16) if wrong else sealed[-16:]
    taken = sealed[:-16] if name == "gcm_open" else data
    job = make_job(engine, iv, aad, taken, tag)
    return engine.call(name, address, job.address, vector=source.randbytes(16))


SECRET_RUNS = [
    ("aes256_expand", 32),
    ("gcm_key_init", 32),
    ("cmac256", 96),
    ("kdf256", 16),
    ("kdf256", 32),
    *((name, length) for name in JOBS for length in (0, 5, 16, 128, 300, 4096)),
]


@pytest.mark.parametrize(("name", "length"), SECRET_RUNS)
@pytest.mark.parametrize("wrong", [False, True])
def test_path_does_not_depend_on_secrets(traced: Traced, name: str, length: int, *, wrong: bool) -> None:
    """The same instructions touch the same addresses whatever the key, the data and the mask are, for each verdict."""
    traces = []
    for seed in range(3 if length < 4096 else 2):
        secret_run(traced, name, seed, length, wrong=wrong)
        traces.append(list(traced.trace))
    assert len(traces[0]) > 50
    assert all(trace == traces[0] for trace in traces)


@pytest.mark.parametrize(("name", "length"), SECRET_RUNS)
def test_the_verdict_comes_late(traced: Traced, name: str, length: int) -> None:
    """Up to the last byte of the tag a wrong one takes the path of a right one."""
    good, bad = ((secret_run(traced, name, 1, length, wrong=wrong), list(traced.trace))[1] for wrong in (False, True))
    same = next((at for at, (left, right) in enumerate(zip(good, bad, strict=False)) if left != right), len(bad))
    if name != "gcm_open":
        assert good == bad
    else:
        left = [entry for entry in bad[same:] if entry[0] != "run"]
        assert all(kind == "read" and size == 8 for kind, _, size in left), "only returns"


@pytest.mark.parametrize(("name", "length"), SECRET_RUNS)
def test_no_secret_is_left_behind(engine: Engine, name: str, length: int) -> None:
    """Whatever the secrets were, registers and stack look the same at return, and vector registers are zero."""
    for wrong in (False, True):
        outcomes = [secret_run(engine, name, seed, length, wrong=wrong) for seed in range(3)]
        remains = set()
        for outcome in outcomes:
            vectors = outcome.vectors(engine.VECTOR_BYTES)
            assert {vector[:16] for vector in vectors[:16]} == {bytes(16)}
            # All ones before the call, and kernels without VEX or EVEX instructions cannot touch them.
            assert len({vector[16:] for vector in vectors[:16]}) == 1
            assert len(set(vectors[16:])) <= 1
            remains.add((outcome.stack, *outcome.general.values()))
        assert len(remains) == 1
        if name in {"gcm_open", "gcm_matches"}:
            assert [outcome.eax for outcome in outcomes] == [int(wrong)] * 3


def test_wipe_takes_the_upper_halves(wide_engine: NativeWide) -> None:
    """The probe fills all vector registers with ones before the call."""
    wide_engine.reset()
    assert wide_engine.call("gcm_vaes_wipe").vector == bytes(16 * wide_engine.VECTOR_BYTES)


def test_wipe_takes_the_upper_registers(widest_engine: NativeWidest) -> None:
    widest_engine.reset()
    assert widest_engine.call("gcm_zmm_wipe").vector == bytes(32 * widest_engine.VECTOR_BYTES)


@pytest.mark.parametrize("name", ["gcm_seal", "gcm_open"])
@pytest.mark.parametrize("length", [64, 500, 4096])
@pytest.mark.parametrize("wrong", [False, True])
def test_zmm_kernel_leaves_nothing_in_the_upper_registers(
    widest_engine: NativeWidest, name: str, length: int, *, wrong: bool
) -> None:
    vectors = secret_run(widest_engine, name, 1, length, wrong=wrong).vectors(64)
    assert set(vectors) == {bytes(64)}
