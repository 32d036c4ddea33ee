"""The start at the reset vector, executed by QEMU from real mode to a request that is served."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.output import image_files
from mh_builder.image.reset import RESET_PAGE, write_reset
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options, Start
from mh_emulator.peer import hello_tag
from mh_emulator.secret import Secret
from mh_qemu.machine import PROGRAM, QemuMachine

ROM_BYTES = 64 << 10
RAM_MIB = 128
COOKIE = 0x1234
SECRET = Secret.fresh()


@pytest.mark.parametrize("home", [0x400_0000, 0x280_3000])
def test_reset_vector_leads_to_service(program: Callable[[str], str], tmp_path: Path, home: int) -> None:
    """The ring lies ready with one request, which the helper serves as soon as it is up."""
    program(PROGRAM)
    image = build_helper("alias-gpa", Options(home=home, ram_limit=RAM_MIB << 20))
    descriptor = parse_image(image.data).descriptor
    (tmp_path / "rom").write_bytes(write_reset(image).rjust(ROM_BYTES, b"\xcc"))
    (tmp_path / "image").write_bytes(image.data)
    ring = bytearray(abi.MH_RING_SUBMISSIONS)
    ring[abi.mh_ring.fields["tail"].offset] = 1
    request = abi.mh_submission(op=abi.mh_op.MH_OP_HELLO.value, cookie=COOKIE).dumps()
    (tmp_path / "ring").write_bytes(bytes(ring) + request)
    (tmp_path / "secret").write_bytes(SECRET.table())
    at = home + descriptor.ring_offset
    loads = [("image", home), ("secret", home + descriptor.secret_offset), ("ring", at)]
    devices = [f"loader,file={tmp_path / name},addr={address:#x},force-raw=on" for name, address in loads]
    arguments = [word for device in devices for word in ("-device", device)]
    with QemuMachine(["-bios", str(tmp_path / "rom"), *arguments], ram_mib=RAM_MIB) as machine:
        end = time.monotonic() + 60
        while not abi.mh_ring(machine.read_memory(at, len(abi.mh_ring))).head and time.monotonic() < end:
            time.sleep(0.05)
        header = abi.mh_ring(machine.read_memory(at, len(abi.mh_ring)))
        completion = abi.mh_completion(machine.read_memory(at + abi.MH_RING_COMPLETIONS, len(abi.mh_completion)))
        hello = machine.read_memory(at + abi.MH_RING_PACKETS, len(abi.mh_hello))
    assert (header.magic, header.state, header.head) == (abi.MH_RING_MAGIC, abi.mh_ring_state.MH_RING_READY, 1)
    assert (completion.status, completion.cookie) == (abi.mh_status.MH_DONE, COOKIE)
    assert any(abi.mh_hello(hello).nonce)
    assert hello[abi.MH_HELLO_MAC_BYTES :] == hello_tag(SECRET, hello[: abi.MH_HELLO_MAC_BYTES])


@pytest.mark.parametrize("name", SCHEMES)
def test_only_images_with_a_32_bit_start_have_the_page(name: str) -> None:
    files = image_files(build_helper(name, Options()))
    assert (f"{name}.reset" in files) == SCHEMES[name].is_low
    assert f"{name}.reset" not in image_files(build_helper(name, Options(start=Start.ES)))


def test_page_ends_with_the_vector() -> None:
    page = write_reset(build_helper("alias-window", Options()))
    assert RESET_PAGE + len(page) == 1 << 32
    # A near jump to the page's first byte; nothing behind it.
    assert page[-16:] == b"\xe9" + (-0xFF0 - 3).to_bytes(2, "little", signed=True) + bytes(13)
