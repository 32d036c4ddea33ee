"""Mutated images: whatever the readers find, they say so in one line, soon, and within bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator_tests.firmware.conftest import Find
from emulator_tests.firmware.readers import readers
from emulator_tests.firmware.small import CARRIER_BYTES, Small, patched, shrink
from mh_builder.firmware import guids
from mh_builder.firmware.compressed import compress
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import inject
from mh_builder.firmware.measure import Vcpus
from mh_builder.firmware.section import GUIDED_HEADER_BYTES, make_guided
from mh_builder.firmware.volume import FILE_HEADER, file_header
from mh_builder.image.model import Image

VCPUS = Vcpus(2, 0x00A00F11)
INTERESTING = st.sampled_from([b"\0", b"\xff", b"\x7f\xff", b"\0\0\0", b"\xff\xff\xff\xff", b"\x18\0\0", bytes(16)])


@pytest.fixture(scope="module")
def small(stock: Find, images: dict[str, Image]) -> bytes:
    return inject(shrink(stock("X64").read_bytes()).data, images["alias-gpa"].data)


@pytest.fixture(scope="module")
def places(small: bytes) -> list[tuple[int, int]]:
    """(start, length) of what the readers look at: headers, table, metadata; each as likely as the others."""
    flash = read_flash(small)
    spots = [(volume.offset, 0x78) for volume in flash.volumes]
    spots += [(flash.carrier.offset, 24 + GUIDED_HEADER_BYTES + 32)]
    top = small.rindex(guids.VOLUME_TOP.bytes_le)
    return [*spots, (top, 24 + 64), (len(small) - 0x100, 0x100), (len(small) - 0x600, 0x600)]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_mutated_flash(small: bytes, places: list[tuple[int, int]], data: st.DataObject) -> None:
    mutated = small
    for _ in range(data.draw(st.integers(1, 4))):
        start, length = data.draw(st.sampled_from(places))
        offset = start + data.draw(st.integers(0, length - 1))
        mutated = patched(mutated, offset, data.draw(INTERESTING | st.binary(min_size=1, max_size=4)))[: len(small)]
    if data.draw(st.booleans()):
        mutated = mutated[: data.draw(st.integers(0, len(mutated)))]
    exercise(mutated)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_mutated_contents(small: bytes, data: st.DataObject) -> None:
    """What is compressed is hostile, the flash around it is not."""
    flash = read_flash(small)
    files = flash.driver_files().files
    inner = flash.inner
    starts = [0, flash.drivers.offset, *(file.offset for file in files), *(file.body for file in files[-2:])]
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 0x40))
        inner = patched(inner, offset, data.draw(INTERESTING | st.binary(min_size=1, max_size=4)))
    body = make_guided(guids.LZMA, compress(inner, CARRIER_BYTES))
    old = flash.carrier
    file = file_header(old.guid, old.kind, old.attributes, body) + body
    room = b"\xff" * (CARRIER_BYTES - old.offset)
    mutated = patched(small, old.offset, patched(room, 0, file)[: len(room)])
    exercise(mutated)


def exercise(flash: bytes) -> None:
    for read in readers(flash):
        try:
            read()
        except FirmwareError as error:
            assert str(error).count("\n") == 0  # noqa: PT017 - the fuzzer's point: no other exception


def test_a_bomb_takes_bounded_memory(stock: Find) -> None:
    """64 MiB of zeros are 10 KiB here; a stream that goes on behind the size that it says is cut there."""
    small: Small = shrink(stock("X64").read_bytes())
    stream = bytearray(compress(bytes(64 << 20), CARRIER_BYTES))
    stream[5:13] = (1 << 20).to_bytes(8, "little")
    body = make_guided(guids.LZMA, bytes(stream))
    old = small.data[small.carrier : small.carrier + FILE_HEADER.size]
    file = file_header(guids.DXEFV, old[18], old[19], body) + body
    bomb = patched(small.data, small.carrier, file.ljust(small.free - small.carrier, b"\xff"))
    tracemalloc.start()
    with pytest.raises(FirmwareError, match=r"^LZMA stream at 0xa8: Corrupt input data$"):
        read_flash(bomb)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
