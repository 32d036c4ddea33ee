"""The other side of a script's session: it knows what the helper's peer would, and what the helper expects next."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from emulator_tests.fuzz.ground import PAGE
from emulator_tests.fuzz.stage import LANES, Stage
from mh_abi import abi
from mh_emulator.host.ring import Sealed

Kind = abi.mh_kind
_MOST_PAGES = 8
"""Of one packet."""
_TOTALS = (Kind.MH_KIND_EPOCH, Kind.MH_KIND_END, Kind.MH_KIND_CONTEXT)
_WITH_DATA = (Kind.MH_KIND_PAGE, Kind.MH_KIND_VMSA)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A packet, as a step has it."""

    number: int
    urgent: bool
    kind: int
    address: int
    pages: int
    wrong: str
    """One of `script.PACKETS`."""
    by: int


class PlayedPeer:
    """The peer in one script; what it seals for a page goes into `sealed`."""

    def __init__(self, stage: Stage, sealed: dict[int, set[bytes]]) -> None:
        self._stage = stage
        self._sealed = sealed
        self._seen: list[Sealed] = []
        self._waiting: Counter[tuple[int, bool]] = Counter()
        """Packets in each lane that its vCPU has not seen."""

    def taken(self, number: int) -> None:
        """The vCPU of that ring is about to see what waits."""
        self._waiting[number, False] = self._waiting[number, True] = 0

    def seal(self, wanted: Wanted) -> Sealed:
        """A packet that is right, but for what is wanted to be wrong."""
        if wanted.wrong == "seen before" and self._seen:
            return self._seen[wanted.by % len(self._seen)]
        keys = self._stage.keys(wanted.number, urgent=wanted.urgent)
        if wanted.wrong == "other key":
            keys = replace(keys, page_key=_other(keys.page_key))
        fields = self._fields(wanted) | {
            "magic": abi.MH_PACKET_MAGIC, "version": keys.protocol,
            "stream": keys.stream, "session": list(keys.session),
        }  # fmt: skip
        if wanted.wrong == "session":
            fields["session"] = list(_other(keys.session))
        elif wanted.wrong in fields:
            fields[wanted.wrong] ^= 1 << wanted.by % 16
        plain = self._plain(wanted, fields["address"])
        if wanted.wrong != "other key" and wanted.kind not in _TOTALS:
            first = self._stage.ground.state_page - self._stage.ground.state_address
            is_state = wanted.kind == Kind.MH_KIND_VMSA
            self._promise(fields["address"] + is_state * first, plain or bytes(self._bytes(wanted)))
        self._waiting[wanted.number, wanted.urgent] += 1
        self._seen.append(_flipped(wanted, *keys.seal(plain, **fields)))
        return self._seen[-1]

    @staticmethod
    def _bytes(wanted: Wanted) -> int:
        return 0 if wanted.kind in _TOTALS else PAGE * min(max(wanted.pages, 1), _MOST_PAGES)

    def _fields(self, wanted: Wanted) -> dict[str, Any]:
        """What the helper expects of the next packet, as far as it is not the session's."""
        block = self._stage.block(wanted.number)
        waiting = self._waiting[wanted.number, wanted.urgent]
        fields = {
            "kind": wanted.kind, "length": self._bytes(wanted), "address": wanted.address, "urgent": 0, "reserved": 0,
            "sequence": block.number(LANES[wanted.urgent], "lane.sequence", size=8) + waiting,
            "epoch": block.number("vcpu.epoch"),
        }  # fmt: skip
        if wanted.kind in _TOTALS:
            counted = "vcpu.epoch_pages" if wanted.kind == Kind.MH_KIND_EPOCH else "vcpu.pages"
            fields["address"] = block.number(counted, size=8)
            fields["urgent"] = block.number("vcpu.urgent", "lane.sequence", size=8)
        return fields

    def _promise(self, address: int, plain: bytes) -> None:
        for at in range(0, len(plain), PAGE):
            self._sealed.setdefault(address + at, set()).add(plain[at : at + PAGE])

    def _plain(self, wanted: Wanted, address: int) -> bytes:
        if wanted.kind == Kind.MH_KIND_CONTEXT:
            return self._stage.ground.context()
        if wanted.kind not in _WITH_DATA:
            return b""
        made = random.Random(f"peer {address}").randbytes(self._bytes(wanted))
        state = self._stage.ground.state() if wanted.kind == Kind.MH_KIND_VMSA else b""
        return state + made[len(state) :]

    def hello(self, wrong: str, by: int) -> bytes:
        """A hello with a field that is other than it should be, its tag being right; or with one bit changed."""
        own = abi.mh_hello(self._stage.block(0).field("vcpu.hello", size=abi.MH_HELLO_MAC_BYTES).ljust(128, b"\0"))
        fields: dict[str, Any] = {
            "our own": {"nonce": list(own.nonce)},
            "guest": {"guest": [by] * abi.MH_GUEST_BYTES},
            "nonce": {"nonce": [by] * abi.MH_NONCE_BYTES},
            "share": {"share": [by] * abi.MH_SHARE_BYTES},
            "reserved": {"reserved": [by, 1]},
            "valid": {},
            "bit": {},
        }.get(wrong, {wrong: by})
        hello = self._stage.hello(**fields)
        return _with_bit(hello, by) if wrong == "bit" else hello


def _other(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _flipped(wanted: Wanted, packet: bytes, data: bytes) -> Sealed:
    """With one bit changed, if that is what is wrong."""
    header, tag = packet[: abi.MH_PACKET_AAD_BYTES], packet[abi.MH_PACKET_AAD_BYTES :]
    if wanted.wrong == "bit of the header":
        header = _with_bit(header, wanted.by)
    elif wanted.wrong == "bit of the tag":
        tag = _with_bit(tag, wanted.by)
    elif wanted.wrong == "bit of the data" and data:
        data = _with_bit(data, wanted.by)
    return Sealed(header + tag, data)


def _with_bit(data: bytes, by: int) -> bytes:
    at = by * 31 % (8 * len(data))
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)
