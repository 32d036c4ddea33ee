"""`migrate --gdb`: gdb stops the helper at symbols, steps, reads, and the migration is what it is without."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emulator_tests.command.conftest import ROOT, Command, command
from mh_builder.image.elf import write_elf
from mh_builder.image.model import Image

__all__ = ["command"]

SCHEME = "regions"


@contextmanager
def waiting(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A migration that waits for gdb, and its port."""
    (folder / "ram").write_bytes(bytes(range(256)) * 32)
    words = ["migrate", "--scheme", SCHEME, "--ram", "ram", "--gdb", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, ROOT / "build.py", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"waiting for gdb: target remote 127\.0\.0\.1:(\d+)\n", line)
        assert found, line
        try:
            yield process, int(found[1])
        finally:
            process.kill()


def gdb_says(gdb: str, image: Path, port: int, *words: str) -> str:
    commands = [argument for word in (f"target remote 127.0.0.1:{port}", *words) for argument in ("-ex", word)]
    done = subprocess.run(
        [gdb, "-batch", "-nx", image, *commands], capture_output=True, text=True, timeout=100, check=False
    )
    return done.stdout + done.stderr


def without_time(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "seconds"}


def test_session(program: Callable[[str], str], images: dict[str, Image], tmp_path: Path, command: Command) -> None:
    image = images[SCHEME]
    (tmp_path / "image.elf").write_bytes(write_elf(image))
    dispatch = image.symbol("dispatch").value
    with waiting(tmp_path) as (process, port):
        said = gdb_says(
            program("gdb"), tmp_path / "image.elf", port,
            "p/x $rip", "break dispatch", "continue", "p/x $rip", "stepi", "p $rip > &dispatch",
            f"x/4xb {dispatch:#x}", "set var $rax = 77", "p $rax", "x/1xb 0", "p/x $xmm0.uint128", "delete", "continue",
        )  # fmt: skip
        out, err = process.communicate(timeout=100)
    assert f"$1 = {image.symbol('entry64').value:#x}" in said
    assert f"$2 = {dispatch:#x}" in said
    assert "$3 = 1" in said
    code = image.data[image.section(".text").offset + dispatch - image.section(".text").va :][:4]
    assert "\t".join(f"0x{byte:02x}" for byte in code) in said
    assert "$4 = 77" in said
    assert "Cannot access memory at address 0x0" in said
    assert "exited normally" in said
    assert (process.returncode, err) == (0, "")
    plain = command("migrate", "--scheme", SCHEME, "--ram", "ram", "--json")
    assert without_time(json.loads(out)) == without_time(json.loads(plain.out))


def test_gdb_that_detaches(program: Callable[[str], str], images: dict[str, Image], tmp_path: Path) -> None:
    (tmp_path / "image.elf").write_bytes(write_elf(images[SCHEME]))
    with waiting(tmp_path) as (process, port):
        assert "detached" in gdb_says(program("gdb"), tmp_path / "image.elf", port, "detach")
        process.communicate(timeout=100)
    assert process.returncode == 0


def packet(data: bytes, checksum: int | None = None) -> bytes:
    return b"$" + data + f"#{sum(data) & 0xFF if checksum is None else checksum:02x}".encode()


def ask(stream: socket.socket, sent: bytes) -> bytes:
    stream.sendall(sent)
    answer = b""
    while not re.search(rb"#..$|^-$", answer):
        more = stream.recv(4096)
        assert more, f"closed behind {answer!r}"
        answer += more
    return answer


def test_packets_that_are_wrong(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.settimeout(60)
            assert ask(stream, packet(b"?", 0)) == b"-"
            assert ask(stream, packet(b"?")).endswith(packet(b"S05"))
            wrong = "pffff p p-1 m12 mxyz,4 m0,-4 P1 P0=zz P0=11 Z0 Z0,q,1"
            for data in wrong.encode().split():
                assert ask(stream, packet(data)).endswith(packet(b"E01")), data
            assert ask(stream, packet(b"m0,4")).endswith(packet(b"E14"))
            for data in (b"X0,1:a", b"vMustReplyEmpty", b"bc", b"Z3,0,1", b"qUnknown"):
                assert ask(stream, packet(data)).endswith(packet(b"")), data
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "build.py: error: gdb has closed the connection\n")


def rip(stream: socket.socket) -> int:
    digits = ask(stream, packet(b"p10"))[-19:-3]
    return int.from_bytes(bytes.fromhex(digits.decode()), "little")


@contextmanager
def at_idle(image: Image, folder: Path) -> Iterator[tuple[socket.socket, int]]:
    """A helper that is about to halt, and the address of its HLT."""
    text = image.section(".text")
    code = image.data[text.offset : text.offset + text.size]
    halts = [text.va + at for at, byte in enumerate(code) if byte == 0xF4]
    with waiting(folder) as (_, port), socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(60)
        for halt in halts:
            ask(stream, packet(f"Z0,{halt:x},1".encode()))
        assert ask(stream, packet(b"c")).endswith(packet(b"S05"))
        for halt in halts:
            ask(stream, packet(f"z0,{halt:x},1".encode()))
        yield stream, rip(stream)


def test_step_over_halt(images: dict[str, Image], tmp_path: Path) -> None:
    with at_idle(images[SCHEME], tmp_path) as (stream, halt):
        assert ask(stream, packet(b"s")).endswith(packet(b"S05"))
        assert rip(stream) == halt + 1


def test_breakpoint_behind_halt(images: dict[str, Image], tmp_path: Path) -> None:
    with at_idle(images[SCHEME], tmp_path) as (stream, halt):
        ask(stream, packet(f"Z1,{halt + 1:x},1".encode()))
        assert ask(stream, packet(b"c")).endswith(packet(b"S05"))
        assert rip(stream) == halt + 1


def test_interrupt_right_behind_continue(tmp_path: Path) -> None:
    with waiting(tmp_path) as (_, port), socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(60)
        assert ask(stream, packet(b"c") + b"\x03").endswith(packet(b"S02"))


def test_triple_fault(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port), socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(60)
        for name in (b"P7=", b"P10="):
            assert ask(stream, packet(name + b"ff" * 7 + b"0f")).endswith(packet(b"OK"))
        assert ask(stream, packet(b"c")).endswith(packet(b"S0b"))
        assert ask(stream, packet(b"p0")).endswith(packet(b"00" * 8))
        stream.sendall(packet(b"c"))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "shutdown" in err


def test_connection_that_is_reset(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("build.py: error: gdb has closed the connection")


def test_packet_without_end(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, port), socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"$" + b"m" * 0x8000)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "build.py: error: gdb sent a packet of more than 0x4000 bytes\n")


def test_interrupt_while_it_waits(tmp_path: Path) -> None:
    with waiting(tmp_path) as (process, _):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "build.py: error: interrupted\n")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--scheme", SCHEME, "--gdb", "70000"], 2),
        (["--scheme", SCHEME, "--gdb", "x"], 2),
        (["--gdb", "0"], 2),
        (["--scheme", SCHEME, "--vcpus", "2", "--gdb", "0"], 2),
        (["--scheme", SCHEME, "--start", "es", "--gdb", "0"], 2),
    ],
)
def test_what_cannot_be_debugged(more: list[str], code: int, command: Command, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"x")
    outcome = command("migrate", "--ram", "ram", *more)
    assert (outcome.code, outcome.out) == (code, "")
    assert "--gdb" in outcome.err


def test_port_that_is_taken(command: Command, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = command("migrate", "--ram", "ram", "--scheme", SCHEME, "--gdb", port)
    assert outcome == (1, "", f"build.py: error: port {port} of 127.0.0.1: Address already in use\n")
