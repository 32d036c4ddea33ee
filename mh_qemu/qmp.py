"""The QEMU machine protocol: commands in, answers out, over a Unix socket (QEMU docs/interop/qmp-spec.txt)."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from mh_abi.errors import MigrationHelperError


class QmpError(MigrationHelperError):
    """QEMU refused a command, or closed the connection."""


class Qmp:
    """One connection. Events that come between answers are dropped: ask for the state instead."""

    def __init__(self, connection: socket.socket, timeout: float = 120.0) -> None:
        """Greet QEMU on a connected socket; no answer may take longer than `timeout` seconds."""
        connection.settimeout(timeout)
        self._connection = connection
        self._lines = connection.makefile("r", encoding="utf-8")
        self._receive()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Run a command and return what it returns.

        Raises QmpError with QEMU's words.
        """
        request = {"execute": command, "arguments": dict(arguments or {})}
        try:
            self._connection.sendall(json.dumps(request).encode())
            answer = self._receive()
            while "event" in answer:
                answer = self._receive()
        except OSError as error:
            raise QmpError(f"QEMU: {command}: {error}") from error
        if "error" in answer:
            raise QmpError(f"QEMU: {command}: {answer['error']['desc']}")
        return answer["return"]

    def monitor(self, line: str) -> str:
        """What the human monitor prints for a line, such as `info tlb`."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._lines.close()
        self._connection.close()

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise QmpError("QEMU closed the connection")
        return dict(json.loads(line))
