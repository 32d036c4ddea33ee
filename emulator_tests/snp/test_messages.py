"""Guest messages: their form, reports and keys, and the context that moves."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from emulator_tests.psp.rig import status
from emulator_tests.snp.foreign import (
    ABSORB,
    CPUID,
    DATA,
    EXPORT,
    GPA,
    IMPORT,
    KEY,
    NOMA,
    REPORT,
    TSC,
    VMRK,
    Line,
    key,
    message,
    pages,
    parse_report,
    running,
    verify_report,
)
from mh_builder.parts import PARTS
from mh_emulator.psp.snp.id_block import IdBlock, sign_id_block
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.platform import Config
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.status import Status
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.instructions import NewState
from mh_emulator.snp.channel import BadAnswerError, Channel
from mh_emulator.snp.host import SnpHost

S = Status
FORMS = {
    "algorithm": {"algo": 2},
    "header's version": {"version": 2},
    "header's size": {"header": 0x61},
    "size 0": {"size": 0},
    "size of no block": {"size": 0x58},
    "size beyond the page": {"size": 0xFB0},
    "no VMPCK": {"vmpck": 4},
    "message's version 0": {"message_version": 0},
    "message's version 2": {"message_version": 2},
}


@pytest.mark.parametrize("form", FORMS)
def test_form_of_a_message(form: str) -> None:
    line = running()
    told, page = line.give(message(line.key, 1, REPORT, bytes(0x60), **FORMS[form]))
    assert (told, page) == (S.INVALID_PARAM, bytes(0x1000))
    assert line.report()


@pytest.mark.parametrize("kind", [0, 2, 6, 18, 19, 255])
def test_a_type_that_is_no_request(kind: int) -> None:
    line = running()
    assert line.give(message(line.key, 1, kind, bytes(0x60)))[0] is S.INVALID_PARAM


def test_numbers_and_tags() -> None:
    line = running()
    line.report()
    good = message(line.key, 3, REPORT, bytes(0x60))
    for seqno in (1, 2, 4, (1 << 64) - 1):
        assert line.give(message(line.key, seqno, REPORT, bytes(0x60)))[0] is S.AEAD_OFLOW
    for at in (0, 0x20, 0x38, 0x60, len(good) - 1):
        spoiled = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert line.give(spoiled)[0] is S.BAD_MEASUREMENT
    assert line.give(message(bytes(32), 3, REPORT, bytes(0x60)))[0] is S.BAD_MEASUREMENT
    assert line.give(good)[0] is S.SUCCESS
    assert line.give(good)[0] is S.AEAD_OFLOW


def test_last_number() -> None:
    line = running()
    line.host.psp._sp.guests[line.guest.gctx].message_counts[0] = (1 << 64) - 4
    assert line.give(message(line.key, (1 << 64) - 3, REPORT, bytes(0x60)))[0] is S.SUCCESS
    assert line.give(message(line.key, (1 << 64) - 1, REPORT, bytes(0x60)))[0] is S.AEAD_OFLOW


def test_pages_of_a_request() -> None:
    line = running()
    host, gctx = line.host, line.guest.gctx
    request = host.page(message(line.key, 1, REPORT, bytes(0x60)))
    large = host.large_page()
    host.update(large, NewState(True, immutable=True, size=PageSize.LARGE))
    other = host.donate()
    fields = {
        (gctx + 8, request, other): S.INVALID_PARAM,
        (request, request, other): S.INVALID_GUEST,
        (gctx, request, host.page()): S.INVALID_PAGE_STATE,
        (gctx, request, line.guest.pages[GPA]): S.INVALID_PAGE_STATE,
        (gctx, request, large): S.INVALID_PAGE_SIZE,
        (gctx, request, other + 0xB00): S.INVALID_PARAM,
        (gctx, 0x1000, other): S.INVALID_ADDRESS,
        (gctx, request + 0xFA8, other): S.INVALID_PARAM,
        (gctx | 1 << 51, request, other | 1 << 51): S.SUCCESS,
    }
    for arguments, told in fields.items():
        assert status(lambda: host.psp.guest_request(GuestRequest(*arguments))) is told, arguments  # noqa: B023


def test_nothing_is_asked_before_the_guest_runs() -> None:
    host = SnpHost(PARTS["milan"], 5)
    line = Line(host, host.start(pages()))
    assert line.give(message(line.key, 1, REPORT, bytes(0x60)))[0] is S.INVALID_GUEST_STATE


@pytest.mark.parametrize("part", ["milan", "genoa", "turin"])
def test_report(part: str) -> None:
    host = SnpHost(PARTS[part], 9)
    keys = [ec.derive_private_key(number, ec.SECP384R1()) for number in (11, 12)]
    guest = host.start(pages())
    ld = host.psp._sp.guests[guest.gctx].digest.ld
    block = IdBlock(ld, b"f" * 16, b"i" * 16, 1, 77, int(DEFAULT_POLICY))
    spas = host.page(block.pack()), host.page(sign_id_block(block, *keys))
    host.psp.launch_finish(LaunchFinish(guest.gctx, *spas, author_key_en=True, host_data=b"h" * 32))
    line = Line(host, guest)
    report = line.report(DATA, 2)
    verify_report(report, host.psp.chain)
    fields = parse_report(report)
    tcb = {"turin": 0x4800_0000_1601_0400}.get(part, 0x4816_0000_0000_0104)
    assert fields | {"report_id": b"", "chip_id": b"", "id_key": b"", "author_key": b""} == {
        "version": 2, "guest_svn": 77, "policy": 0x30000, "vmpl": 2, "algorithm": 1, "tcb": tcb, "platform": 1,
        "flags": 1, "data": DATA, "measurement": ld, "host_data": b"h" * 32, "id_key": b"", "author_key": b"",
        "report_id": b"", "report_id_ma": b"\xff" * 32, "reported_tcb": tcb, "chip_id": b"", "committed_tcb": tcb,
        "current": fields["committed"], "committed": fields["current"], "launch_tcb": tcb,
    }  # fmt: skip
    assert fields["current"][1:] == b"\x37\x01"
    assert (report[0x10:0x20], report[0x20:0x30]) == (b"f" * 16, b"i" * 16)
    assert len({fields["report_id"], fields["id_key"], fields["author_key"], bytes(32), bytes(48)}) == 5
    assert line.report(DATA, 2)[:0x2A0] == report[:0x2A0]


def test_forged_report() -> None:
    line, other = running(), running(seed=6)
    report, chain = line.report(DATA), line.host.psp.chain
    verify_report(report, chain)
    for at in (8, 0x50, 0x90, 0x140, 0x29F, 0x2A0, 0x2E8):
        with pytest.raises(InvalidSignature):
            verify_report(report[:at] + bytes([report[at] ^ 1]) + report[at + 1 :], chain)
    with pytest.raises(AssertionError):
        verify_report(report, other.host.psp.chain)
    with pytest.raises(InvalidSignature):
        verify_report(report, [other.host.psp.chain[0][:-1] + b"\0", *chain[1:]])


def test_a_vmpl_asks_for_itself_and_for_those_below() -> None:
    line = running()
    low = Line(line.host, line.guest, vmpck=2)
    for kind, before, behind in ((REPORT, DATA, bytes(28)), (KEY, struct.pack("<IIQ", 1, 0, 0), bytes(12))):
        told = [low.ask(kind, before + struct.pack("<I", vmpl) + behind)[0] for vmpl in range(4)]
        assert told == [S.INVALID_PARAM, S.INVALID_PARAM, S.SUCCESS, S.SUCCESS]


def test_reserved_fields_of_requests() -> None:
    line = running()
    bad = {
        CPUID: struct.pack("<IIQ", 0, 1, 0),
        KEY: struct.pack("<IIQIIQ", 8, 0, 0, 0, 0, 0),
        REPORT: DATA + struct.pack("<II24x", 0, 4),
        EXPORT: struct.pack("<QII", line.guest.gctx, 2, 0),
        IMPORT: struct.pack("<QIIQ", line.guest.gctx, 0x300, 3, 1),
        ABSORB: struct.pack("<QIIQ", line.guest.gctx + 1, 0x300, 3, 0),
        VMRK: struct.pack("<QQ", line.guest.gctx, 1),
        NOMA: struct.pack("<QIIQ", line.guest.gctx, 0x300, 3, 0),
        TSC: b"\1".rjust(0x80, b"\0"),
    }
    assert {kind: line.ask(kind, payload)[0] for kind, payload in bad.items()} == dict.fromkeys(bad, S.INVALID_PARAM)


def test_derived_keys() -> None:
    line = running()
    same = SnpHost(PARTS["milan"], 5)
    tcb = parse_report(line.report())["reported_tcb"]
    keys = {
        name: key(line, *arguments)
        for name, arguments in {
            "chip": (0,), "VMRK": (1,), "policy": (0, 1), "image": (0, 2), "measurement": (0, 8),
            "TCB": (0, 32, 0, tcb), "older TCB": (0, 32, 0, tcb - 1),
        }.items()
    }  # fmt: skip
    assert {told for told, _ in keys.values()} == {S.SUCCESS}
    assert len({derived for _, derived in keys.values()}) == len(keys)
    assert key(Line(same, same.run(pages()))) == keys["chip"]
    assert key(running(seed=6))[1] != keys["chip"][1]
    vmrk = line.host.psp._sp.guests[line.guest.gctx].vmrk
    mix = struct.pack("<IIQIIQQ", 1, 0, 0, 0, 0, 0, 0).ljust(168, b"\0")
    expected = hmac.digest(vmrk, struct.pack("<I", 1) + b"gmsg-keyreq\0" + mix + struct.pack("<I", 256), hashlib.sha256)
    assert keys["VMRK"][1] == expected
    for arguments in ((0, 64), (0, 16, 1), (0, 32, 0, tcb + 1), (0, 32, 0, 1 << 24)):
        assert key(line, *arguments)[0] == S.INVALID_PARAM
    assert [key(line, select << 1)[0] for select in range(4)] == [0, 0, S.INVALID_KEY, S.INVALID_KEY]


def test_masked_keys() -> None:
    line = running()
    line.host.psp.config(Config(mask_chip_id=True, mask_chip_key=True))
    report = line.report()
    assert (parse_report(report)["chip_id"], parse_report(report)["flags"]) == (bytes(64), 2 | 7 << 2)
    assert report[0x2A0:] == bytes(0x200)
    assert [key(line, root)[0] for root in (0, 1)] == [S.INVALID_KEY, S.SUCCESS]


def test_a_guest_may_not_want_the_vcek() -> None:
    host = SnpHost(PARTS["milan"], 5)
    guest = host.start(pages())
    host.psp.launch_finish(LaunchFinish(guest.gctx, vcek_dis=True))
    line = Line(host, guest)
    assert line.ask(REPORT, DATA)[0] == key(line)[0] == S.INVALID_KEY
    assert host.psp.guest_status(guest.gctx).vcek_dis


def test_tcb_downgrade() -> None:
    """A platform may report less than it runs, and never more; old reports cannot be made again after COMMIT."""
    line = running()
    psp = line.host.psp
    old = parse_report(line.report())["reported_tcb"]
    old_chain = psp.chain
    psp.download_firmware_ex(23)
    fields = parse_report(line.report())
    assert (fields["tcb"], fields["reported_tcb"], fields["committed_tcb"]) == (old + (1 << 48), old, old)
    psp.commit()
    report = line.report()
    assert {parse_report(report)[name] for name in ("tcb", "reported_tcb", "committed_tcb")} == {old + (1 << 48)}
    assert parse_report(report)["launch_tcb"] == old
    verify_report(report, psp.chain)
    with pytest.raises(AssertionError):
        verify_report(report, old_chain)
    assert status(lambda: psp.download_firmware_ex(22)) is S.BAD_SVN
    for wanted in (old + (2 << 48), old + 1, old | 1 << 24):
        assert status(lambda: psp.config(Config(wanted))) is S.INVALID_PARAM  # noqa: B023
    psp.config(Config(old))
    lower = parse_report(line.report())
    assert (lower["reported_tcb"], lower["committed_tcb"]) == (old, old + (1 << 48))
    verify_report(line.report(), old_chain)


def function(leaf: int, reserved: int = 0) -> bytes:
    return struct.pack("<IIQQIIIIQ", leaf, 0, 0, 0, 1, 2, 3, 4, reserved)


def test_cpuid() -> None:
    line = running()
    functions = function(1) + function(0x4000_0000, 9) + function(0x8000_001F)
    told, answer = line.ask(CPUID, struct.pack("<IIQ", 3, 0, 0) + functions)
    assert (told, answer[4:16], answer[16:]) == (0, struct.pack("<IQ", 2, 0), functions)
    assert line.ask(CPUID, struct.pack("<IIQ", 65, 0, 0))[0] == S.INVALID_PARAM
    assert line.ask(CPUID, struct.pack("<IIQ", 1, 0, 0) + function(7, 1))[0] == S.INVALID_PARAM


def test_tsc_info() -> None:
    host = SnpHost(PARTS["genoa"], 5)
    line = Line(host, host.run(pages(), LaunchStart(host.create(), DEFAULT_POLICY, tsc_khz=2_500_000)))
    told, answer = line.ask(TSC, bytes(0x80))
    assert struct.unpack_from("<QQI", answer, 8) == (-(-(2_500_000 << 32) // 99_800), 0, 200)
    assert (told, len(answer)) == (S.SUCCESS, 0x80)


def test_the_emulators_own_guest_speaks_the_same() -> None:
    line = running()
    channel = Channel.of(line.host, line.guest, 1)
    request = DATA + struct.pack("<I", 1)
    told, answer = channel.ask(MessageType.REPORT_REQ, request)
    assert told is S.SUCCESS
    verify_report(answer[0x20:0x4C0], line.host.psp.chain)
    page = channel.carry(channel.seal(MessageType.REPORT_REQ, request))
    with pytest.raises(BadAnswerError, match="answer 0x6 with number 4, expected 0x4"):
        channel.open(MessageType.KEY_REQ, page)
    with pytest.raises(BadAnswerError, match="expected 0x6"):
        channel.open(MessageType.REPORT_REQ, page[:0x80] + b"xx" + page[0x82:])
    assert channel.open(MessageType.REPORT_REQ, page)[0] is S.SUCCESS
    with pytest.raises(BadAnswerError):
        channel.open(MessageType.REPORT_REQ, page)
