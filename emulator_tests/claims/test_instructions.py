"""Which instructions a build has: those that every part has, and those that another engine decodes likewise."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import capstone
import pytest

from emulator_tests.claims.code import decoded
from emulator_tests.coverage.blobs import HELPERS, RECORDED, Instruction, blob, is_32_bit

PRIVILEGED = {
    "cli": {"entry.s", "fault.s", "loader/paging.s", "start32.s"},
    "cpuid": {"features.s", "loader/handover.s", "loader/sev.s"},
    "hlt": {"fault.s", "ring.s", "landing/landing.s"},
    "invlpg": {"loader/paging.s"},
    "lgdt": {"entry.s", "start32.s", "landing/load.inc"},
    "lidt": {"entry.s", "fault.s", "ring.s", "landing/load.inc"},
    "lldt": {"landing/load.inc"},
    "ltr": {"entry.s", "landing/load.inc"},
    "mov": {
        *("entry.s", "fault.s", "features.s", "loader/paging.s", "start32.s"),
        *("landing/landing.s", "landing/load.inc"),
    },
    "out": {"loader/debug.s"},
    "rdmsr": {"loader/sev.s"},
    "vmmcall": {"processor.s", "landing/landing.s"},
    "wrmsr": {"loader/handover.s", "processor.s", "start32.s", "landing/landing.s", "landing/load.inc"},
    "xsetbv": {"features.s", "landing/load.inc"},
}
"""What only ring 0 may, or what a host can intercept; `mov` is that of control registers. Sources that have it."""
INTERCEPTED = {"cpuid", "out", "rdmsr", "xsetbv"}
"""Those of them that capstone does not call privileged."""
WIDE = {256: {"gcm_vaes.inc", "gcm_vaes.s"}, 512: {"gcm_vaes.inc", "gcm_vaes.s", "gcm_zmm.inc", "gcm_zmm.s"}}
"""By the bits of a build's vectors: sources with VEX or EVEX instructions, which features.s asks CPUID about."""
_CARRY_LESS = {"lqlq": 0, "hqlq": 1, "lqhq": 16, "hqhq": 17}


def source_of(line: str) -> str:
    return line.partition(":")[0].removeprefix("payload/")


def test_privileged_instructions_are_where_they_are_expected() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for name in RECORDED:
        for instruction, insn in decoded(name).values():
            if insn.group(capstone.CS_GRP_PRIVILEGE) or insn.mnemonic in INTERCEPTED:
                found[insn.mnemonic].add(source_of(instruction.line))
    assert found == PRIVILEGED


@pytest.mark.parametrize("name", RECORDED)
def test_vex_and_evex_only_in_kernels_of_their_own(name: str) -> None:
    """A CPU without AVX runs all of the other sources."""
    vector = {
        source_of(one.line)
        for one, insn in decoded(name).values()
        if insn.mnemonic.startswith("v") and insn.mnemonic != "vmmcall"
    }
    bits = 512 if "512" in name else 256
    assert vector == (WIDE[bits] if name in HELPERS else set())


def said(text: str) -> str:
    """An instruction without what the two write differently: spaces, bases and signs of numbers, the obvious."""
    text = re.sub(r"0x[0-9a-f]+", lambda found: str(int(found[0], 16)), text.lower())
    text = re.sub(r"ptr|\s|[de]s:|\*1(?=[]+-])", "", text)
    text = re.sub(r"([],\w])-(\d+)", lambda found: f"{found[1]}+{(1 << 64) - int(found[2])}", text)
    text = text.replace(",+", ",").replace("+0]", "]").replace("repz", "repe")
    text = re.sub(r"(stos|lods|movs|cmps)(?:q(?=qword)|w(?=word)|b(?=byte|al))", r"\1", text)
    text = re.sub(r"^(ltr|lldt)[re](?=[a-d]x)", r"\1", text)
    text = "vmmcall" if text == "vmgexit" else text
    text = re.sub(r"^(pushf|popf)q", r"\1", text).replace("lgdtd", "lgdt").replace("ljmp", "jmp")
    kind = re.match(r"(v?pclmul)([lh]q[lh]q)dq", text)
    return f"{kind[1]}qdq{text[kind.end() :]},{_CARRY_LESS[kind[2]]}" if kind else text


def objdump(path: Path, tool: str, first: int, end: int, *, is_32: bool) -> dict[int, str]:
    """What it says of the bytes from one offset to another, by offset."""
    machine = "i386" if is_32 else "i386:x86-64"
    command = [tool, "-D", "-b", "binary", "-m", machine, "-M", "intel", "-wz", "--no-show-raw-insn"]
    command += [f"--start-address={first}", f"--stop-address={end}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (re.match(r"\s*([0-9a-f]+):\s*(.*?)\s*(?:#.*)?$", line) for line in done.stdout.splitlines())
    return {int(row[1], 16): said(row[2]) for row in rows if row}


def kind_of(one: Instruction) -> tuple[str, bool]:
    """Its source file, behind which there may be data, and whether it has 32 bits."""
    return one.place.split(" from ")[-1].partition(":")[0], is_32_bit(one.line)


@pytest.mark.parametrize("name", RECORDED)
def test_objdump_decodes_the_same(name: str, program: Callable[[str], str], tmp_path: Path) -> None:
    """Line for line."""
    path = tmp_path / "text"
    path.write_bytes(blob(name).text)
    known = [(at, kind_of(one), insn) for at, (one, insn) in sorted(decoded(name).items())]
    theirs: dict[int, str] = {}
    for (_, is_32), rows in groupby(known, key=itemgetter(1)):
        run = list(rows)
        end = run[-1][0] + run[-1][2].size
        theirs |= objdump(path, program("objdump"), run[0][0], end, is_32=is_32)
    ours = {at: said(f"{insn.mnemonic} {insn.op_str}") for at, _, insn in known}
    assert len(ours) > 500
    assert [(hex(at), text, theirs.get(at)) for at, text in ours.items() if theirs.get(at) != text] == []
