"""One QEMU process under TCG: started, watched, read, ended.

Never with KVM: what passes for it on a machine without SVM or VMX cannot run firmware.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from mh_abi.errors import MigrationHelperError
from mh_qemu.qmp import Qmp, QmpError

PROGRAM = "qemu-system-x86_64"
DEBUG_PORT = "isa-debugcon.iobase"

_POLL_SECONDS = 0.02


class QemuError(MigrationHelperError):
    """QEMU is not installed, ended, or did not do what was waited for in time."""


class QemuMachine:
    """A q35 machine without network or display; its serial line and debug port go to files.

    Use it as a context manager: leaving it ends the process and removes its files.
    """

    def __init__(
        self, arguments: Sequence[str], *, ram_mib: int = 512, debug_port: int = 0x402, cpu: str = "max"
    ) -> None:
        """Start QEMU, halted before its first instruction if `-S` is among `arguments`.

        Raises QemuError if there is no QEMU or it ends at once.
        """
        path = shutil.which(PROGRAM)
        if path is None:
            raise QemuError(f"{PROGRAM} is not installed (Debian: qemu-system-x86)")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mh-qemu-")))
            self._serial, self._debug, self._stderr = folder / "serial", folder / "debug", folder / "stderr"
            command = [
                path, "-accel", "tcg", "-machine", "q35", "-cpu", cpu, "-m", str(ram_mib),
                "-nodefaults", "-display", "none", "-net", "none", "-monitor", "none", "-no-reboot",
                "-serial", f"file:{self._serial}", "-debugcon", f"file:{self._debug}",
                "-global", f"{DEBUG_PORT}={debug_port:#x}",
                "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off", *arguments,
            ]  # fmt: skip
            with self._stderr.open("wb") as stderr:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)  # noqa: S603
            stack.callback(self._end)
            self.qmp = stack.enter_context(self._connect(folder / "qmp"))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def serial(self) -> str:
        """What the guest has written to its first serial line so far."""
        return _text(self._serial)

    @property
    def debug(self) -> str:
        """What the guest has written to the debug port so far."""
        return _text(self._debug)

    def wait_for_debug(self, marker: str, seconds: float) -> str:
        """The first whole line of the debug port that begins with `marker`. Raises QemuError."""
        return self._wait_for("debug port", self._debug, marker, seconds)

    def wait_for_serial(self, marker: str, seconds: float) -> str:
        """The first whole line of the serial line that contains `marker`. Raises QemuError."""
        return self._wait_for("serial line", self._serial, marker, seconds)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until QEMU has ended of itself. Raises QemuError."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise QemuError(f"QEMU has not ended in {seconds:g} s") from None

    def read_memory(self, gpa: int, length: int) -> bytes:
        """`length` bytes of guest-physical memory from `gpa`. Raises QmpError."""
        path = self._serial.with_name("memory")
        self.save_memory(gpa, length, path)
        data = path.read_bytes()
        path.unlink()
        return data

    def save_memory(self, gpa: int, length: int, path: Path) -> None:
        """Write guest-physical memory into a file. Raises QmpError."""
        self.qmp.execute("pmemsave", {"val": gpa, "size": length, "filename": str(path)})

    def stop(self) -> None:
        """Stop all vCPUs."""
        self.qmp.execute("stop")

    def _wait_for(self, name: str, path: Path, marker: str, seconds: float) -> str:
        end = time.monotonic() + seconds
        while True:
            ended = self._process.poll() is not None
            whole = _text(path).rpartition("\n")[0]
            for line in whole.splitlines():
                if marker in line:
                    return line
            if ended:
                raise QemuError(f"QEMU ended before {marker!r} came on its {name}{self._complaint()}")
            if time.monotonic() > end:
                raise QemuError(f"{marker!r} has not come on the {name} in {seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _connect(self, path: Path) -> Qmp:
        end = time.monotonic() + 60
        connection = socket.socket(socket.AF_UNIX)
        while True:
            try:
                connection.connect(str(path))
                return Qmp(connection)
            except (FileNotFoundError, ConnectionRefusedError, QmpError) as error:
                if self._process.poll() is not None:
                    connection.close()
                    raise QemuError(f"QEMU ended at once{self._complaint()}") from error
                if time.monotonic() > end or isinstance(error, QmpError):
                    connection.close()
                    raise QemuError(f"QEMU does not answer: {error}") from error
            time.sleep(_POLL_SECONDS)

    def _complaint(self) -> str:
        words = _text(self._stderr).strip()
        return f": {words}" if words else ""

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
