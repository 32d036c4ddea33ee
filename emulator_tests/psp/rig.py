"""One secure processor with its DRAM, and the other ends of its sessions, made without the code under test."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.psp import amd
from mh_emulator.psp.command import GuestState
from mh_emulator.psp.firmware import Firmware
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.session import Session
from mh_emulator.psp.status import CommandError, Status
from mh_emulator.psp.transport import Receiver

PAGE = 0x1000
BASE = 0x12_3400_0000
REGION = BASE - 0x10_0000
ES_ASID, ASID, OTHER_ASID = 5, 100, 101
DATA = bytes(range(256)) * 16
TEK, TIK = b"T" * 16, b"I" * 16

S = Status
G = GuestState


class Rig:
    """A platform, with SEV-ES where its memory for checksums is given."""

    def __init__(
        self, part: str = "milan", *, init: bool = True, size: int = 1 << 20, region: int = REGION, seed: int = 3
    ) -> None:
        self.dram = Dram(size, BASE, PARTS[part], seed)
        self.fw = Firmware(self.dram, seed)
        self.calls: list[tuple[str, Status]] = []
        self.fw.watchers.append(lambda command, status: self.calls.append((command.name, status)))
        if init:
            self.init(region)

    def init(self, region: int = REGION) -> None:
        self.fw.init(region)
        self.fw.wbinvd()
        self.fw.df_flush()

    def guest(self, state: GuestState = G.LUPDATE, policy: int = 0, asid: int = ASID, handle: int = 0) -> int:
        """A guest that commands have brought to `state`, without a session where none is needed."""
        if state is G.RUPDATE:
            new = self.fw.receive_start(policy, self.session(policy), handle)
        else:
            new = self.fw.launch_start(policy, None, handle)
        if asid:
            self.fw.activate(new, asid)
        if state not in (G.LUPDATE, G.RUPDATE):
            self.fw.launch_measure(new)
        if state in (G.RUNNING, G.SUPDATE, G.SENT):
            self.fw.launch_finish(new)
        if state in (G.SUPDATE, G.SENT):
            self.fw.send_start(new, receiver(self.fw))
        if state is G.SENT:
            self.fw.send_finish(new)
        return new

    def session(self, policy: int) -> Session:
        """A session that anybody can make who knows the platform's certificate."""
        return session(self.fw.pdh_cert_export().pdh, policy)


def receiver(firmware: Firmware) -> Receiver:
    """The platform of `firmware`, as one to send to."""
    exported = firmware.pdh_cert_export()
    return Receiver(PlatformCertificates(exported.pdh, firmware.full_chain), amd.root().chain)


def status(call: Callable[[], object]) -> Status:
    """What a command returns."""
    try:
        call()
    except CommandError as error:
        return error.status
    return S.SUCCESS


def sp800_108(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """The KDF with the endianness of the firmware, on the library's own construction."""
    fixed = label + b"\0" + context + struct.pack("<I", 128)
    counter = (1).to_bytes(4, "big")
    derived = KBKDFHMAC(
        hashes.SHA256(), Mode.CounterMode, 16, 4, 4, CounterLocation.BeforeFixed, None, None, fixed
    )  # fmt: skip
    # The library counts big-endian only, so the one block is made by hand and the library checks the hand.
    assert derived.derive(key) == hmac.digest(key, counter + fixed, "sha256")[:16]
    return hmac.digest(key, struct.pack("<I", 1) + fixed, "sha256")[:16]


def ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def point(certificate: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a certificate: curve, X and Y from byte 16, least significant byte first."""
    x, y = (int.from_bytes(certificate[at : at + 72], "little") for at in (20, 92))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()


def dh_certificate(public: ec.EllipticCurvePublicKey, usage: int = 0x1003, algorithm: int = 3) -> bytes:
    """A certificate that nobody signed."""
    numbers = public.public_numbers()
    key = struct.pack("<I", 2) + numbers.x.to_bytes(72, "little") + numbers.y.to_bytes(72, "little")
    body = struct.pack("<IBBHII", 1, 0, 0, 0, usage, algorithm) + key.ljust(1028, b"\0")
    return body + struct.pack("<II512x", 0x1000, 0) * 2


_OTHER_END = ec.derive_private_key(0x1234567, ec.SECP384R1())


@cache
def session(pdh: bytes, policy: int, tek: bytes = TEK, tik: bytes = TIK) -> Session:
    private = _OTHER_END
    nonce, iv = bytes(range(16)), bytes(range(16, 32))
    kek, kik = wrapping_keys(private.exchange(ec.ECDH(), point(pdh))[::-1], nonce)
    wrapped = ctr(kek, iv, tek + tik)
    blob = nonce + wrapped + iv
    blob += hmac.digest(kik, wrapped, "sha256") + hmac.digest(tik, struct.pack("<I", policy), "sha256")
    return Session(dh_certificate(private.public_key()), blob)


def wrapping_keys(z: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    master = sp800_108(z, b"sev-master-secret", nonce)
    return sp800_108(master, b"sev-kek"), sp800_108(master, b"sev-kik")


def packet(
    context: int, data: bytes, *, flags: int = 0, bound: bytes = b"", tek: bytes = TEK, tik: bytes = TIK
) -> Packet:
    """A packet of LAUNCH_SECRET (1), SEND_UPDATE_DATA (2) or SEND_UPDATE_VMSA (3)."""
    iv = b"v" * 16
    ciphertext = ctr(tek, iv, data)
    covered = struct.pack("<BI", context, flags) + iv + struct.pack("<II", len(data), len(data)) + ciphertext + bound
    return Packet(struct.pack("<I", flags) + iv + hmac.digest(tik, covered, "sha256"), ciphertext)
