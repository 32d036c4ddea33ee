"""A host that keeps what it saw of a session, and learns everything else when the session is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mh_abi import abi
from mh_compare.arena import Arena, Role, Side, Status
from mh_compare.attacks.attack import Attack
from mh_compare.evidence import xor
from mh_compare.outcome import Outcome, harmless, succeeds
from mh_compare.stored import variables
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.host.ring import Sealed
from mh_emulator.host.session import abort, begin, finish, greet
from mh_emulator.peer import SessionKeys, session_keys
from mh_emulator.secret import Secret

_RANDOM = 20
"""Different bytes that 32 random ones have at least, but for one case in some millions."""


@dataclass(frozen=True)
class Recorded:
    """What the host has seen of a session, and the owner's secret."""

    secret: Secret
    source: bytes
    target: bytes
    packet: Sealed
    plain: bytes
    """What the packet is to be opened to."""

    def is_opened_by(self, found: bytes) -> bool:
        """Whether these 32 bytes are its page key, or lead to it: as session key, as shared secret, as a scalar."""
        return any(self._is_key(key) for key in self._keys(found))

    def _keys(self, found: bytes) -> Iterator[bytes]:
        yield found
        yield SessionKeys(found, abi.MH_PROTOCOL_HIGH).page_key(0)
        yield self._of_shared(found)
        for share in self._shares:
            yield self._of_shared(X25519PrivateKey.from_private_bytes(found).exchange(share))

    @cached_property
    def _shares(self) -> list[X25519PublicKey]:
        hellos = (self.source, self.target)
        return [X25519PublicKey.from_public_bytes(bytes(abi.mh_hello(hello).share)) for hello in hellos]

    @cached_property
    def _first(self) -> tuple[bytes, bytes]:
        """The first block of the key stream, which has the counter 2 (SP 800-38D, 7.1), before and after encryption."""
        iv = self.packet.packet[abi.MH_PACKET_IV_OFFSET :][: abi.MH_PACKET_IV_BYTES]
        return iv + (2).to_bytes(4, "big"), xor(self.packet.data[:BLOCK_BYTES], self.plain[:BLOCK_BYTES])

    def _of_shared(self, shared: bytes) -> bytes:
        return session_keys(self.secret, self.source, self.target, shared).page_key(0)

    def _is_key(self, key: bytes) -> bool:
        counter, encrypted = self._first
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counter) == encrypted  # noqa: S305


def read_recorded(arena: Arena[Side]) -> Outcome:
    """Record a migration to its end; then learn the transport key, and all that either helper still has in memory."""
    source, target = arena.source, arena.target
    for side in (source, target):
        abort(side.ring)
    hellos = greet(source.ring), greet(target.ring)
    begin(source.ring, Role.MH_ROLE_SOURCE, hellos[1])
    begin(target.ring, Role.MH_ROLE_TARGET, hellos[0])
    address = arena.address(0)
    recorded = Recorded(arena.secret, *hellos, source.export(address), arena.plaintext(0))
    if target.put(address, recorded.packet) != Status.MH_DONE:
        raise AssertionError("the target refuses a faithful packet")
    finish(source.ring, target.ring)
    found = {*_windows(hellos[0]), *_windows(hellos[1]), bytes(abi.MH_KEY_BYTES)}
    for side in (source, target):
        found |= _left_in(side, arena)
    if any(recorded.is_opened_by(key) for key in found):
        return succeeds("the host opens the packets of a session that is over")
    return harmless("nothing that is left opens the packets of a session that is over")


def _left_in(side: Side, arena: Arena[Side]) -> set[bytes]:
    """What a helper's variables have that could be a key, as a kernel sees it that can read them."""
    pages = (side.read_helper(offset, abi.MH_PAGE_BYTES) for offset in variables(arena.candidate.image))
    return {window for page in pages if any(page) for window in _windows(page)}


def _windows(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data) - abi.MH_KEY_BYTES + 1, BLOCK_BYTES):
        window = data[at : at + abi.MH_KEY_BYTES]
        if len(set(window)) >= _RANDOM:
            yield window


ATTACKS = (
    Attack(
        "host-reads-recorded-stream",
        "Host records a session, and learns key and memory when it is over",
        read_recorded,
        is_gentle=True,
    ),
)
