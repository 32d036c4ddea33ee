"""The guest's formats once more, made without the code under test: messages, reports, contexts."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from emulator_tests.psp.rig import status
from mh_builder.firmware.snp import SnpPage, pages_at
from mh_builder.parts import PARTS
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.status import Status
from mh_emulator.snp.host import SECRETS_GPA, Launched, SnpHost

CPUID, KEY, REPORT, EXPORT, IMPORT, ABSORB, VMRK, NOMA, TSC = range(1, 18, 2)


def gcm(key: bytes, seqno: int, aad: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Ciphertext and tag."""
    encryptor = Cipher(algorithms.AES(key), modes.GCM(struct.pack("<QI", seqno, 0))).encryptor()
    encryptor.authenticate_additional_data(aad)
    return encryptor.update(data) + encryptor.finalize(), encryptor.tag


def message(key: bytes, seqno: int, kind: int, payload: bytes, **fields: int) -> bytes:
    """A request, with any field of its header as it should not be."""
    form = {"algo": 1, "version": 1, "header": 0x60, "message_version": 1, "size": len(payload), "vmpck": 0} | fields
    clear = struct.pack(
        "<BBHBBHIBBH32s", form["algo"], form["version"], form["header"], kind, form["message_version"], form["size"], 0,
        form["vmpck"], 0, 0, b"",
    )  # fmt: skip
    sealed, tag = gcm(key, seqno, clear, payload)
    return tag.ljust(32, b"\0") + struct.pack("<QQ", seqno, 0) + clear + sealed


@dataclass
class Line:
    """A guest's line to its secure processor."""

    host: SnpHost
    guest: Launched
    vmpck: int = 0
    count: int = 0
    key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self.key = self.key or self.secrets()[0x20 + 32 * self.vmpck :][:32]

    def secrets(self) -> bytes:
        return self.host.dram.read_private(self.guest.asid, self.guest.pages[SECRETS_GPA], 0x1000)

    def give(self, sealed: bytes, offset: int = 0) -> tuple[Status, bytes]:
        """Status of the mailbox, and the page of the answer."""
        request, response = self.host.page(bytes(offset) + sealed), self.host.donate()
        told = status(
            lambda: self.host.psp.guest_request(GuestRequest(self.guest.gctx, request + offset, response))
        )  # fmt: skip
        return told, self.host.dram.read_raw(response, 0x1000)

    def ask(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        """Status inside of the answer, and the answer."""
        body = payload.ljust(-len(payload) % 16 + len(payload), b"\0")
        told, page = self.give(message(self.key, self.count + 1, kind, body, vmpck=self.vmpck))
        assert told is Status.SUCCESS
        self.count += 2
        size, seqno = struct.unpack_from("<H", page, 0x36)[0], struct.unpack_from("<Q", page, 0x20)[0]
        assert (page[0x34], page[0x35], seqno) == (kind + 1, 1, self.count)
        sealed = page[0x60 : 0x60 + size]
        decryptor = Cipher(
            algorithms.AES(self.key), modes.GCM(struct.pack("<QI", seqno, 0), page[:16])
        ).decryptor()  # fmt: skip
        decryptor.authenticate_additional_data(page[0x30:0x60])
        answer = decryptor.update(sealed) + decryptor.finalize()
        return struct.unpack_from("<I", answer)[0], answer

    def report(self, data: bytes = bytes(64), vmpl: int = 0) -> bytes:
        told, answer = self.ask(REPORT, data + struct.pack("<I28x", vmpl))
        assert (told, struct.unpack_from("<I", answer, 4)) == (0, (0x4A0,))
        return answer[0x20:0x4C0]

    def export(self, gctx: int, imi_en: int) -> tuple[int, bytes]:
        told, answer = self.ask(EXPORT, struct.pack("<QII", gctx, imi_en, 0))
        assert struct.unpack_from("<II", answer, 4) == (0x300, 3)
        return told, answer[0x20:0x320]

    def bring(self, kind: int, gctx: int, blob: bytes, size: int = 0x300, version: int = 3) -> int:
        return self.ask(kind, struct.pack("<QII16x", gctx, size, version) + blob)[0]


# Offsets: AMD-ASPFW, sev_rmp.h, where each is a comment.
REPORT_FIELDS = {
    "version": (0, "<I"), "guest_svn": (4, "<I"), "policy": (8, "<Q"), "vmpl": (0x30, "<I"), "algorithm": (0x34, "<I"),
    "tcb": (0x38, "<Q"), "platform": (0x40, "<Q"), "flags": (0x48, "<I"), "data": (0x50, "64s"),
    "measurement": (0x90, "48s"), "host_data": (0xC0, "32s"), "id_key": (0xE0, "48s"), "author_key": (0x110, "48s"),
    "report_id": (0x140, "32s"), "report_id_ma": (0x160, "32s"), "reported_tcb": (0x180, "<Q"),
    "chip_id": (0x1A0, "64s"), "committed_tcb": (0x1E0, "<Q"), "current": (0x1E8, "3s"), "committed": (0x1EC, "3s"),
    "launch_tcb": (0x1F0, "<Q"),
}  # fmt: skip


def parse_report(report: bytes) -> dict[str, Any]:
    return {name: struct.unpack_from(form, report, at)[0] for name, (at, form) in REPORT_FIELDS.items()}


def verify_report(report: bytes, chain: list[bytes]) -> None:
    """Raise an exception of `cryptography`, or `AssertionError`, unless the chain's VCEK signed the report."""
    vcek, ask, ark = (x509.load_der_x509_certificate(der) for der in chain)
    for certificate, issuer in ((ark, ark), (ask, ark), (vcek, ask)):
        assert certificate.issuer == issuer.subject
        public = issuer.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        public.verify(certificate.signature, certificate.tbs_certificate_bytes, pss, hashes.SHA384())
    fields = parse_report(report)
    extensions = {found.oid.dotted_string: found.value.value for found in vcek.extensions}
    assert extensions["1.3.6.1.4.1.3704.1.4"] == fields["chip_id"][: len(extensions["1.3.6.1.4.1.3704.1.4"])]
    is_turin = "1.3.6.1.4.1.3704.1.3.9" in extensions
    at = {1: 1, 2: 2, 3: 3, 8: 7, 9: 0} if is_turin else {1: 0, 2: 1, 3: 6, 8: 7}
    levels = {n: int.from_bytes(extensions[f"1.3.6.1.4.1.3704.1.3.{n}"][2:], "big") for n in at}
    assert levels == {n: fields["reported_tcb"] >> 8 * byte & 0xFF for n, byte in at.items()}
    r, s = (int.from_bytes(report[start : start + 72], "little") for start in (0x2A0, 0x2E8))
    key = vcek.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(encode_dss_signature(r, s), report[:0x2A0], ec.ECDSA(hashes.SHA384()))


GPA = 0x10_0000
DATA = bytes(range(64))


def pages() -> list[SnpPage]:
    return list(pages_at(GPA, b"helper".ljust(0x2000, b"\xf4")))


def running(part: str = "milan", seed: int = 5) -> Line:
    host = SnpHost(PARTS[part], seed)
    return Line(host, host.run(pages()))


def key(line: Line, root: int = 0, fields: int = 0, svn: int = 0, tcb: int = 0) -> tuple[int, bytes]:
    told, answer = line.ask(KEY, struct.pack("<IIQIIQ", root, 0, fields, 0, svn, tcb))
    return told, answer[0x20:0x40]
