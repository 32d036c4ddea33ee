"""Hostile IGVM files: whatever is in them, there is an answer or one line, within bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.igvm import oracle
from emulator_tests.igvm.conftest import VCPUS
from emulator_tests.igvm.test_announced import HOBS, newer
from emulator_tests.igvm.uses import uses
from mh_abi import abi
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.file import Igvm
from mh_builder.igvm.insert import with_pages
from mh_builder.igvm.launch import launch_digest
from mh_builder.igvm.layout import STRUCTURES, Kind
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap

NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 0x30, 0xFFF, 0x1000, 0x20_0000, 1 << 31, 1 << 32, (1 << 32) - 0x1000])
EVEN_MORE = NUMBERS | st.integers(0, (1 << 64) - 1)


@pytest.fixture(scope="session")
def wrapped(small: bytes) -> bytes:
    return wrap(small, VCPUS)


@pytest.fixture(scope="session")
def announcing(small: bytes) -> Igvm:
    """A file whose firmware reads data HOBs, from the page at `HOBS`."""
    return read_igvm(wrap(newer(small), VCPUS))


def exercise(data: bytes) -> Igvm | None:
    """Read a file and do with it all that can be done; what is refused is refused in one line."""
    tracemalloc.start()
    try:
        every = uses(data)
        for use in every:
            in_one_line(use)
    except FirmwareError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the fuzzer's point: no other exception
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * len(data) + (8 << 20)
    return read_igvm(data)


def in_one_line(use: Callable[[], object]) -> None:
    try:
        use()
    except FirmwareError as error:
        assert "\n" not in str(error)  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_bytes(wrapped: bytes, data: st.DataObject) -> None:
    """With the checksum set right, as a hostile writer would."""
    mutated = bytearray(wrapped)
    headers = 24 + struct.unpack_from("<I", wrapped, 12)[0]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.sampled_from([0, 24, 0x60, 0x90]) | st.integers(0, headers))
        patch = data.draw(st.binary(min_size=1, max_size=8) | NUMBERS.map(lambda number: struct.pack("<Q", number)))
        mutated[start : start + len(patch)] = patch
    end = data.draw(st.sampled_from([len(mutated), headers, 32]) | st.integers(0, len(mutated)))
    exercise(bytes(mutated))
    exercise(oracle.resealed(bytes(mutated[:end])))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A header of any type, of the right size or not, its fields from few numbers that may fit together."""
    kind = draw(st.sampled_from([kind.value for kind in Kind]) | st.just(0x8000_0555))
    layout = STRUCTURES[Kind(kind)][0].format if kind in Kind.__members__.values() else "<Q"
    fields = []
    for code in layout.replace("<", ""):
        bits = {"B": 8, "H": 16, "I": 32, "Q": 64}.get(code)
        if bits is not None:
            fields.append(struct.pack(f"<{code}", draw(EVEN_MORE) % (1 << bits)))
    body = b"".join(fields).ljust(struct.calcsize(layout), b"\0")
    return oracle.header(kind, body[: draw(st.sampled_from([len(body)] * 9 + [3]))])


@settings(max_examples=200, deadline=None)
@given(
    bodies=st.lists(bodies(), max_size=8), size=st.sampled_from([0, 0x1000, 0x3000]), version=st.sampled_from([1, 2])
)
def test_structures(bodies: list[bytes], size: int, version: int) -> None:
    platforms = [oracle.platform(oracle.SEV, 1), oracle.platform(oracle.SEV_SNP, 2), oracle.platform(oracle.SEV_ES, 4)]
    ordered = sorted(bodies, key=lambda body: body[:4][::-1])
    exercise(oracle.assemble([*platforms, *ordered], bytes(size), version))


RECORDS = st.builds(
    lambda length, data: struct.pack("<HHI16sQQII", 4, length, 0, UUID(abi.MH_IGVM_DATA_GUID).bytes_le, *data),
    st.sampled_from([48, 48, 48, 0, 24, 64, 0xFFFF]),
    st.tuples(EVEN_MORE, EVEN_MORE, st.sampled_from([0x201, 0x4D480001]), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(RECORDS | st.binary(max_size=48), max_size=4))
def test_data_hobs(announcing: Igvm, records: list[bytes]) -> None:
    page = b"".join(records).ljust(4096, b"\0")
    exercise(with_pages(announcing, [(HOBS, page)]).data)


PAGES = st.builds(
    lambda number, mask, data, flags, kind: (0xFFFF_0000 + 0x1000 * number, mask, data, flags, kind),
    st.integers(0, 15), st.sampled_from([1, 2, 3]), st.sampled_from([b"", b"a", b"b", b"c"]),
    st.sampled_from([0, 0, 0, 2, 4]), st.sampled_from([0, 0, 0, 0, 1, 2]),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(pages=st.lists(PAGES, max_size=20, unique_by=lambda entry: entry[0]), version=st.sampled_from([1, 2]))
def test_good_files(pages: list[tuple[int, int, bytes, int, int]], version: int) -> None:
    """Files that are good by construction are read, and measured as the oracle measures them."""
    heading = [oracle.platform(oracle.SEV_SNP, 1), oracle.platform(oracle.SEV, 2)]
    first = oracle.data_offset([*heading, *(oracle.page(gpa, mask) for gpa, mask, *_ in pages)], version)
    places = {b"": 0} | {letter: first + 4096 * number for number, letter in enumerate((b"a", b"b", b"c"))}
    headers = [oracle.page(gpa, mask, places[data], flags, kind) for gpa, mask, data, flags, kind in pages]
    file = oracle.assemble([*heading, *headers], b"a" * 4096 + b"b" * 4096 + b"c" * 4096, version)
    igvm = exercise(file)
    assert igvm is not None
    found = oracle.parse(file)
    found.pages = [entry for entry in found.pages if not entry[2] & 4]
    assert launch_digest(igvm, Mode.SNP) == oracle.snp_digest(found)
    if all(kind == 0 for _, mask, _, flags, kind in pages if mask & 2 and not flags & 4):
        found.pages = [entry for entry in found.pages if not entry[2] & 2]
        assert launch_digest(igvm, Mode.SEV) == oracle.sev_digest(found, oracle.SEV)
