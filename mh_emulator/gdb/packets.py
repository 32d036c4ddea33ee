"""Packets of the remote protocol on a connection: `$data#checksum`, acknowledged by `+`, asked for again by `-`."""

from __future__ import annotations

import select
import socket

from mh_abi.errors import MigrationHelperError

INTERRUPT = "\x03"
"""What gdb sends for Ctrl-C, outside of any packet."""

PACKET_BYTES = 0x4000
"""Most that a packet holds, as it is told to gdb."""


class DebuggerGoneError(MigrationHelperError):
    """gdb has closed the connection while it was needed."""


class Connection:
    """One gdb."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._read = b""
        self._acknowledges = True

    def receive(self) -> str:
        """The next packet's data, or `INTERRUPT`. Raises `DebuggerGoneError`."""
        while True:
            byte = self._byte()
            if byte == INTERRUPT.encode():
                return INTERRUPT
            if byte != b"$":
                continue
            data = b""
            while (byte := self._byte()) != b"#":
                data += byte
                if len(data) > PACKET_BYTES:
                    raise DebuggerGoneError(f"gdb sent a packet of more than {PACKET_BYTES:#x} bytes")
            is_right = self._byte() + self._byte() == f"{sum(data) & 0xFF:02x}".encode()
            if self._acknowledges:
                self._write(b"+" if is_right else b"-")
            if is_right:
                return data.decode("latin-1")

    def send(self, text: str) -> None:
        """Send a packet; where gdb acknowledges, its `+` is read over by `receive`."""
        data = text.encode("latin-1")
        self._write(b"$" + data + f"#{sum(data) & 0xFF:02x}".encode())

    def stop_acknowledging(self) -> None:
        """From now on neither side does (QStartNoAckMode)."""
        self._acknowledges = False

    def is_interrupted(self) -> bool:
        """Whether gdb wants a running target to stop. Raises `DebuggerGoneError`."""
        while self._read or select.select([self._stream], [], [], 0)[0]:
            if self._byte() == INTERRUPT.encode():
                return True
        return False

    def close(self) -> None:
        """Say no more."""
        self._stream.close()

    def _byte(self) -> bytes:
        if not self._read:
            try:
                self._read = self._stream.recv(PACKET_BYTES)
            except OSError as error:
                raise DebuggerGoneError(f"gdb has closed the connection: {error.strerror}") from None
        if not self._read:
            raise DebuggerGoneError("gdb has closed the connection")
        byte, self._read = self._read[:1], self._read[1:]
        return byte

    def _write(self, data: bytes) -> None:
        try:
            self._stream.sendall(data)
        except OSError as error:
            raise DebuggerGoneError(f"gdb has closed the connection: {error.strerror}") from None
