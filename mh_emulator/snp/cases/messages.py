"""Cases of guest messages about the guest itself, and of the host in between."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_emulator.psp.snp.launch import LaunchStart
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.tsc import tsc_scale
from mh_emulator.snp.channel import BadAnswerError, Channel
from mh_emulator.snp.notes import Outcome
from mh_emulator.snp.report import is_signed, read_report
from mh_emulator.snp.stage import Stage

_KEY_REQUEST = struct.Struct("<IIQIIQ")
_KHZ = 2_500_000


def report(stage: Stage) -> Outcome:
    """a report, which verifies from the VCEK to AMD's root"""
    _verify(stage, read_report(stage, _channel(stage)), stage.host.psp.chain)
    return stage.last()


def report_forged(stage: Stage) -> Outcome:
    """the host changes the measurement in a report"""
    genuine = read_report(stage, _channel(stage))
    forged = genuine[:0x90] + bytes(48) + genuine[0xC0:]
    return _verify(stage, forged, stage.host.psp.chain)


def report_of_another_chip(stage: Stage) -> Outcome:
    """a report of one machine is shown with the chain of another one"""
    genuine = read_report(stage, _channel(stage))
    return _verify(stage, genuine, stage.another_host().psp.chain)


def report_for_a_higher_vmpl(stage: Stage) -> Outcome:
    """VMPL1 wants a report that says VMPL0"""
    request = bytes(64) + struct.pack("<I28x", 0)
    stage.ask(_channel(stage, 1), MessageType.REPORT_REQ, request)
    return stage.last()


def key(stage: Stage) -> Outcome:
    """a key from the chip's secret, and one from the VMRK, which migrates"""
    channel = _channel(stage)
    keys = {stage.ask(channel, MessageType.KEY_REQ, _KEY_REQUEST.pack(root, 0, 0, 0, 0, 0)) for root in (0, 1)}
    return stage.last() if len(keys) == 2 else Outcome.REFUSED


def key_of_a_newer_tcb(stage: Stage) -> Outcome:
    """a key of a TCB above the committed one"""
    tcb = stage.host.psp.platform_status().reported_tcb + (1 << 56)
    stage.ask(_channel(stage), MessageType.KEY_REQ, _KEY_REQUEST.pack(0, 0, 1 << 5, 0, 0, tcb))
    return stage.last()


def cpuid(stage: Stage) -> Outcome:
    """a list of CPUID functions"""
    function = struct.pack("<IIQQIIIIQ", 1, 0, 0, 0, 1, 2, 3, 4, 0)
    stage.ask(_channel(stage), MessageType.CPUID_REQ, struct.pack("<IIQ", 1, 0, 0) + function)
    return stage.last()


def tsc_info(stage: Stage) -> Outcome:
    """scale and offset of the guest's time"""
    guest = stage.guest(start=LaunchStart(stage.host.create(), DEFAULT_POLICY, tsc_khz=_KHZ))
    answer = stage.ask(Channel.of(stage.host, guest), MessageType.TSC_INFO_REQ, bytes(0x80))
    told = struct.unpack_from("<Q", answer, 8)[0]
    return stage.last() if told == tsc_scale(_KHZ) else Outcome.REFUSED


def message_replayed(stage: Stage) -> Outcome:
    """the host hands over a guest's message twice"""
    channel = _channel(stage)
    message = channel.seal(MessageType.REPORT_REQ, bytes(0x60))
    channel.carry(message)
    stage.attempt(lambda: channel.carry(message))
    return stage.last()


def message_changed(stage: Stage) -> Outcome:
    """the host changes a guest's message"""
    channel = _channel(stage)
    message = channel.seal(MessageType.REPORT_REQ, bytes(0x60))
    stage.attempt(lambda: channel.carry(message[:-1] + bytes([message[-1] ^ 1])))
    return stage.last()


def answer_replayed(stage: Stage) -> Outcome:
    """the host answers with the page of an earlier answer"""
    channel = _channel(stage)
    old = channel.carry(channel.seal(MessageType.REPORT_REQ, bytes(0x60)))
    channel.open(MessageType.REPORT_REQ, old)
    channel.carry(channel.seal(MessageType.REPORT_REQ, bytes(0x60)))
    try:
        channel.open(MessageType.REPORT_REQ, old)
    except BadAnswerError:
        return stage.found("open answer", "another message's")
    return stage.found("open answer")


def request_page_of_the_guest(stage: Stage) -> Outcome:
    """the answer is to go into a page of the guest, past its protection"""
    guest = stage.guest()
    channel = Channel.of(stage.host, guest)
    message = stage.host.page(channel.seal(MessageType.REPORT_REQ, bytes(0x60)))
    stage.attempt(lambda: channel.hand_over(message, next(iter(guest.pages.values()))))
    return stage.last()


def _verify(stage: Stage, shown: bytes, chain: list[bytes]) -> Outcome:
    return stage.found("verify report", "" if is_signed(shown, chain) else "bad signature")


def _channel(stage: Stage, vmpck: int = 0) -> Channel:
    return Channel.of(stage.host, stage.guest(), vmpck)


MESSAGES: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "report": report,
        "report-forged": report_forged,
        "report-of-another-chip": report_of_another_chip,
        "report-for-a-higher-vmpl": report_for_a_higher_vmpl,
        "key": key,
        "key-of-a-newer-tcb": key_of_a_newer_tcb,
        "cpuid": cpuid,
        "tsc-info": tsc_info,
        "message-replayed": message_replayed,
        "message-changed": message_changed,
        "answer-replayed": answer_replayed,
        "answer-into-the-guest": request_page_of_the_guest,
    }
)
