"""A guest's report, as the guest gets it, and whether somebody who knows the chain believes it."""

from __future__ import annotations

import struct

from mh_emulator.attest.chain import Chain, ChainError
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.report import REPORT_BYTES
from mh_emulator.snp.channel import Channel
from mh_emulator.snp.stage import Stage

_REPORT_START = 0x20


def read_report(stage: Stage, channel: Channel, data: bytes = bytes(64)) -> bytes:
    """The report with `data`, for the channel's own VMPL."""
    request = data + struct.pack("<I28x", channel.vmpck)
    return stage.ask(channel, MessageType.REPORT_REQ, request)[_REPORT_START : _REPORT_START + REPORT_BYTES]


def is_signed(report: bytes, chain: list[bytes]) -> bool:
    """Whether the VCEK of `chain`, which is VCEK, ASK and ARK in DER, signed the report, and they one another."""
    try:
        return Chain(chain).signed(report)
    except ChainError:
        return False
