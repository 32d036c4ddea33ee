"""abi.h: the same to C, to Python and to the assembler."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from mh_abi import abi
from mh_builder.asm import assemble_text

TEXT = "".join(header.read_text() for header in abi.HEADERS)
STRUCTURES = sorted(set(re.findall(r"^struct (mh_\w+) \{", TEXT, re.MULTILINE)))


def test_c_agrees_on_every_size_offset_and_constant(program: Callable[[str], str], tmp_path: Path) -> None:
    assert "mh_packet" in STRUCTURES
    lines = ["#include <stddef.h>", "#include <stdint.h>", f'#include "{abi.HEADER}"']
    for name, value in abi.assembler_symbols().items():
        if isinstance(value, str):
            lines.append(f'_Static_assert(sizeof({name}) == sizeof("{value}"), "{name}");')
        elif name.startswith("sizeof."):
            lines.append(f'_Static_assert(sizeof(struct {name[7:]}) == {value}, "{name}");')
        elif "." in name:
            structure, field = name.split(".")
            lines.append(f'_Static_assert(offsetof(struct {structure}, {field}) == {value}, "{name}");')
        else:
            lines.append(f'_Static_assert({name} == {value}u, "{name}");')
    source = tmp_path / "abi.c"
    source.write_text("\n".join([*lines, ""]))
    command = [
        program("cc"),
        "-std=c11",
        "-ffreestanding",
        "-Wall",
        "-Wextra",
        "-Wpadded",
        "-Werror",
        "-fsyntax-only",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0


def test_assembler_sees_every_structure() -> None:
    symbols = abi.assembler_symbols()
    for name in STRUCTURES:
        structure = getattr(abi, name)
        assert symbols[f"sizeof.{name}"] == len(structure)
        data = assemble_text(f".data\n.quad sizeof.{name}\n", "t.s", symbols=symbols).sections[-1].data
        assert int.from_bytes(data, "little") == len(structure)


def test_ring_areas_follow_each_other_without_overlap() -> None:
    entries = abi.MH_RING_ENTRIES
    assert entries & (entries - 1) == 0
    assert len(abi.mh_ring) <= abi.MH_RING_SUBMISSIONS
    assert abi.MH_RING_SUBMISSIONS + entries * len(abi.mh_submission) <= abi.MH_RING_COMPLETIONS
    slots = abi.MH_RING_SLOTS
    assert abi.MH_RING_COMPLETIONS + entries * len(abi.mh_completion) <= abi.MH_RING_LIST
    assert abi.MH_RING_LIST + 8 * slots <= abi.MH_RING_RESULTS
    assert abi.MH_RING_RESULTS + len(abi.mh_result) * slots <= abi.MH_RING_PACKETS
    assert len(abi.mh_packet) <= abi.MH_PACKET_SLOT_BYTES
    assert abi.MH_RING_PACKETS + slots * abi.MH_PACKET_SLOT_BYTES <= abi.MH_RING_DATA
    assert abi.MH_RING_DATA + slots * abi.MH_PAGE_BYTES == abi.MH_URGENT_SUBMISSIONS
    assert abi.MH_RING_DATA % abi.MH_PAGE_BYTES == abi.MH_RING_BYTES % abi.MH_PAGE_BYTES == 0


def test_urgent_areas_follow_each_other_without_overlap() -> None:
    entries, slots = abi.MH_URGENT_ENTRIES, abi.MH_URGENT_SLOTS
    assert entries & (entries - 1) == 0
    assert abi.MH_URGENT_SUBMISSIONS + entries * len(abi.mh_submission) <= abi.MH_URGENT_COMPLETIONS
    assert abi.MH_URGENT_COMPLETIONS + entries * len(abi.mh_completion) <= abi.MH_URGENT_LIST
    assert abi.MH_URGENT_LIST + 8 * slots <= abi.MH_URGENT_RESULTS
    assert abi.MH_URGENT_RESULTS + len(abi.mh_result) * slots <= abi.MH_URGENT_PACKETS
    assert abi.MH_URGENT_PACKETS + slots * abi.MH_PACKET_SLOT_BYTES <= abi.MH_URGENT_DATA
    assert abi.MH_URGENT_DATA + slots * abi.MH_PAGE_BYTES == abi.MH_RING_BYTES


def test_streams_of_rings_and_lanes_are_distinct() -> None:
    assert abi.MH_MAX_RINGS <= abi.MH_STREAM_URGENT


def test_host_and_helper_write_to_different_cache_lines() -> None:
    fields = abi.mh_ring.fields
    assert fields["tail"].offset // 64 != fields["head"].offset // 64 == fields["state"].offset // 64
    assert fields["fault"].offset // 64 != fields["tail"].offset // 64


def test_iv_is_stream_and_sequence() -> None:
    fields = abi.mh_packet.fields
    assert fields["stream"].offset == abi.MH_PACKET_IV_OFFSET
    assert fields["sequence"].offset + 8 == abi.MH_PACKET_IV_OFFSET + abi.MH_PACKET_IV_BYTES
    assert fields["tag"].offset == abi.MH_PACKET_AAD_BYTES
