"""The secure processor: states, order of errors, sessions and measurements."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mh_emulator.dram import Dram
from mh_emulator.owner import GuestOwner
from mh_emulator.parts import PARTS
from mh_emulator.psp.firmware import COPY_WINDOW_BYTES, Firmware
from mh_emulator.psp.session import LaunchSession, Packet
from mh_emulator.psp.state import GuestState, PlatformState, Policy
from mh_emulator.psp.status import FirmwareError, Status

PAGE = 0x1000
BASE = 0x12_3400_0000
ASID, OTHER_ASID = 100, 101
DATA = bytes(range(256)) * 16

S = Status
G = GuestState


class Rig:
    """One secure processor with its DRAM."""

    def __init__(self, part: str = "milan", *, init: bool = True, size: int = 128 << 20) -> None:
        self.dram = Dram(size, BASE, PARTS[part], 3)
        self.fw = Firmware(self.dram, 3)
        if init:
            self.init()

    def init(self, region: int = 0) -> None:
        self.fw.init(region)
        self.fw.wbinvd()
        self.fw.df_flush()

    def guest(self, state: GuestState = G.LUPDATE, policy: int = 0, asid: int = ASID, handle: int = 0) -> int:
        new = self.fw.launch_start(policy, None, handle)
        if asid:
            self.fw.activate(new, asid)
        self.fw._guests[new].state = state
        return new


def status(call: Callable[[], object]) -> Status:
    try:
        call()
    except FirmwareError as error:
        return error.status
    return S.SUCCESS


SECRET = Packet(bytes(52), bytes(16))

COMMANDS: dict[str, Callable[[Firmware, int], object]] = {
    "LAUNCH_UPDATE_DATA": lambda fw, handle: fw.launch_update_data(handle, BASE, PAGE),
    "LAUNCH_MEASURE": lambda fw, handle: fw.launch_measure(handle),
    "LAUNCH_SECRET": lambda fw, handle: fw.launch_secret(handle, SECRET, BASE, 16),
    "LAUNCH_FINISH": lambda fw, handle: fw.launch_finish(handle),
    "ACTIVATE": lambda fw, handle: fw.activate(handle, OTHER_ASID),
    "DEACTIVATE": lambda fw, handle: fw.deactivate(handle),
    "DECOMMISSION": lambda fw, handle: fw.decommission(handle),
    "COPY": lambda fw, handle: fw.copy(handle, BASE, BASE + PAGE, PAGE),
    "DBG_DECRYPT": lambda fw, handle: fw.dbg_decrypt(handle, BASE, BASE + PAGE, PAGE),
    "DBG_ENCRYPT": lambda fw, handle: fw.dbg_encrypt(handle, BASE, BASE + PAGE, PAGE),
}

# With an activated guest: what each command gives in LUPDATE, LSECRET, RUNNING, SUPDATE, RUPDATE, SENT.
TABLE = {
    "LAUNCH_UPDATE_DATA": (S.SUCCESS, *[S.INVALID_GUEST_STATE] * 5),
    "LAUNCH_MEASURE": (S.SUCCESS, *[S.INVALID_GUEST_STATE] * 5),
    "LAUNCH_SECRET": (S.INVALID_GUEST_STATE, S.BAD_MEASUREMENT, *[S.INVALID_GUEST_STATE] * 4),
    "LAUNCH_FINISH": (S.INVALID_GUEST_STATE, S.SUCCESS, *[S.INVALID_GUEST_STATE] * 4),
    "ACTIVATE": (*[S.ACTIVE] * 5, S.INVALID_GUEST_STATE),
    "DEACTIVATE": (S.SUCCESS,) * 6,
    "DECOMMISSION": (S.ACTIVE,) * 6,
    "COPY": (S.SUCCESS,) * 6,
    "DBG_DECRYPT": (S.SUCCESS,) * 6,
    "DBG_ENCRYPT": (S.SUCCESS,) * 6,
}
GUEST_STATES = (G.LUPDATE, G.LSECRET, G.RUNNING, G.SUPDATE, G.RUPDATE, G.SENT)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", GUEST_STATES)
def test_guest_states(command: str, state: GuestState) -> None:
    rig = Rig()
    handle = rig.guest(state)
    assert status(lambda: COMMANDS[command](rig.fw, handle)) is TABLE[command][GUEST_STATES.index(state)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_guest_command_needs_a_working_platform_then_a_known_guest(command: str) -> None:
    rig = Rig(init=False)
    assert status(lambda: COMMANDS[command](rig.fw, 1)) is S.INVALID_PLATFORM_STATE
    rig.init()
    assert status(lambda: COMMANDS[command](rig.fw, 1)) is S.INVALID_PLATFORM_STATE
    rig.guest()
    assert status(lambda: COMMANDS[command](rig.fw, 77)) is S.INVALID_GUEST


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("LAUNCH_UPDATE_DATA", G.LUPDATE),
        ("LAUNCH_SECRET", G.LSECRET),
        ("DEACTIVATE", G.RUNNING),
        ("COPY", G.RUNNING),
        ("DBG_DECRYPT", G.RUNNING),
        ("DBG_ENCRYPT", G.RUNNING),
    ],
)
def test_commands_that_touch_memory_need_an_asid(command: str, state: GuestState) -> None:
    rig = Rig()
    handle = rig.guest(state, asid=0)
    assert status(lambda: COMMANDS[command](rig.fw, handle)) is S.INACTIVE


def test_platform_states() -> None:
    rig = Rig(init=False)
    assert status(lambda: rig.fw.launch_start(0)) is S.INVALID_PLATFORM_STATE
    assert status(lambda: rig.fw.guest_status(1)) is S.INVALID_PLATFORM_STATE
    assert status(rig.fw.df_flush) is S.INVALID_PLATFORM_STATE
    rig.init()
    seen = [rig.fw.state]
    assert status(rig.fw.init) is S.INVALID_PLATFORM_STATE
    handle = rig.fw.launch_start(0)
    seen.append(rig.fw.state)
    rig.fw.decommission(handle)
    seen.append(rig.fw.state)
    rig.guest()
    rig.fw.shutdown()
    seen.append(rig.fw.state)
    assert seen == [PlatformState.INIT, PlatformState.WORKING, PlatformState.INIT, PlatformState.UNINIT]
    assert not rig.dram.has_key(ASID)


def test_guest_status_never_fails_for_a_wrong_handle() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, policy=5 << 16)
    assert rig.fw.guest_status(handle) == (5 << 16, ASID, G.RUNNING)
    assert rig.fw.guest_status(99) == (0, 0, G.UNINIT)


@pytest.mark.parametrize(
    ("part", "asid", "expected"),
    [
        ("milan", 0, S.INVALID_ASID),
        ("milan", 510, S.INVALID_ASID),
        ("milan", 509, S.SUCCESS),
        ("milan", 99, S.INVALID_ASID),
        ("genoa", 1006, S.SUCCESS),
        ("naples", 16, S.INVALID_ASID),
        ("naples", 15, S.SUCCESS),
        ("naples", 4, S.INVALID_ASID),
    ],
)
def test_asid_ranges(part: str, asid: int, expected: Status) -> None:
    rig = Rig(part)
    handle = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(handle, asid)) is expected


def test_an_owned_asid_is_refused_before_an_active_guest_is() -> None:
    rig = Rig()
    rig.guest()
    second = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.ASID_OWNED
    rig.fw.activate(second, OTHER_ASID)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.ASID_OWNED
    assert status(lambda: rig.fw.activate(second, OTHER_ASID + 1)) is S.ACTIVE


def test_the_asid_of_a_guest_that_ran_is_dirty_until_wbinvd_and_df_flush() -> None:
    rig = Rig()
    first = rig.guest(G.RUNNING)
    rig.fw.deactivate(first)
    rig.fw.decommission(first)
    second = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.DF_FLUSH_REQUIRED
    assert status(rig.fw.df_flush) is S.WBINVD_REQUIRED
    rig.fw.wbinvd()
    rig.fw.df_flush()
    rig.fw.activate(second, ASID)


def test_the_asid_of_a_guest_that_never_ran_stays_clean() -> None:
    rig = Rig()
    first = rig.guest(G.LSECRET)
    rig.fw.deactivate(first)
    rig.fw.activate(rig.guest(asid=0), ASID)


@pytest.mark.parametrize(
    ("policy", "other", "expected"),
    [
        (0, 0, S.SUCCESS),
        (Policy.NODBG, Policy.NODBG, S.SUCCESS),
        (Policy.NODBG, 0, S.POLICY_FAILURE),
        (Policy.NOKS, Policy.NOKS, S.POLICY_FAILURE),
        (1 << 16, 2 << 16, S.POLICY_FAILURE),
    ],
)
def test_key_sharing(policy: int, other: int, expected: Status) -> None:
    rig = Rig()
    first = rig.guest(G.RUNNING, policy=policy)
    assert status(lambda: rig.guest(policy=other, asid=OTHER_ASID, handle=first)) is expected
    if expected is S.SUCCESS:
        rig.dram.write_private(ASID, BASE, DATA)
        assert rig.dram.read_private(OTHER_ASID, BASE, PAGE) == DATA


def test_key_sharing_with_nobody() -> None:
    rig = Rig()
    assert status(lambda: rig.fw.launch_start(0, None, 9)) is S.INVALID_GUEST


def test_guests_have_keys_of_their_own_and_reactivation_keeps_them() -> None:
    rig = Rig()
    first, _ = rig.guest(), rig.guest(asid=OTHER_ASID)
    rig.dram.write_private(ASID, BASE, DATA)
    assert rig.dram.read_private(OTHER_ASID, BASE, PAGE) != DATA
    rig.fw.deactivate(first)
    rig.fw.activate(first, OTHER_ASID + 1)
    assert rig.dram.read_private(OTHER_ASID + 1, BASE, PAGE) == DATA


def test_sev_es_is_not_enabled_on_the_platform() -> None:
    rig = Rig()
    assert status(lambda: rig.fw.launch_start(Policy.ES)) is S.UNSUPPORTED


@pytest.mark.parametrize(
    ("spa", "size", "expected"),
    [
        (BASE + 8, 8, S.INVALID_ADDRESS),
        (BASE, 8, S.INVALID_LENGTH),
        (BASE, 0, S.INVALID_LENGTH),
        (BASE + 16, 16, S.SUCCESS),
    ],
)
def test_launch_update_data_arguments(spa: int, size: int, expected: Status) -> None:
    rig = Rig()
    handle = rig.guest()
    assert status(lambda: rig.fw.launch_update_data(handle, spa, size)) is expected


def test_launch_update_data_encrypts_in_place_and_nothing_beside() -> None:
    rig = Rig()
    handle = rig.guest()
    rig.dram.write_raw(BASE, DATA)
    rig.fw.launch_update_data(handle, BASE + 0x100, 0x200)
    raw = rig.dram.read_raw(BASE, PAGE)
    assert raw[:0x100] + raw[0x300:] == DATA[:0x100] + DATA[0x300:]
    assert rig.dram.read_private(ASID, BASE + 0x100, 0x200) == DATA[0x100:0x300]


@pytest.mark.parametrize(
    ("source", "destination", "size", "expected"),
    [
        (BASE, BASE + PAGE, 0, S.INVALID_LENGTH),
        (BASE, BASE + PAGE, 16, S.INVALID_LENGTH),
        (BASE + 16, BASE + PAGE, PAGE, S.INVALID_ADDRESS),
        (BASE, BASE + PAGE + 16, PAGE, S.INVALID_ADDRESS),
        (BASE, BASE, PAGE, S.SUCCESS),
        (BASE + COPY_WINDOW_BYTES - PAGE, BASE, 2 * PAGE, S.INVALID_PARAM),
        (BASE, BASE + COPY_WINDOW_BYTES - PAGE, 2 * PAGE, S.INVALID_PARAM),
        (BASE + COPY_WINDOW_BYTES - PAGE, BASE + COPY_WINDOW_BYTES, PAGE, S.SUCCESS),
    ],
)
def test_copy_arguments(source: int, destination: int, size: int, expected: Status) -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, policy=Policy.NODBG | Policy.NOKS | Policy.NOSEND)
    assert status(lambda: rig.fw.copy(handle, source, destination, size)) is expected


def test_copy_keeps_the_plaintext_under_another_tweak() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING)
    rig.dram.write_private(ASID, BASE, DATA)
    rig.fw.copy(handle, BASE, BASE + 5 * PAGE, PAGE)
    assert rig.dram.read_private(ASID, BASE + 5 * PAGE, PAGE) == DATA
    assert rig.dram.read_raw(BASE, PAGE) != rig.dram.read_raw(BASE + 5 * PAGE, PAGE)


def test_debug_commands_and_the_policy_that_forbids_them() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING)
    rig.dram.write_raw(BASE, DATA)
    rig.fw.dbg_encrypt(handle, BASE, BASE + PAGE, PAGE)
    assert rig.dram.read_private(ASID, BASE + PAGE, PAGE) == DATA
    rig.fw.dbg_decrypt(handle, BASE + PAGE, BASE + 2 * PAGE, PAGE)
    assert rig.dram.read_raw(BASE + 2 * PAGE, PAGE) == DATA
    locked = rig.guest(G.RUNNING, policy=Policy.NODBG, asid=OTHER_ASID)
    assert status(lambda: rig.fw.dbg_decrypt(locked, BASE, BASE, 16)) is S.POLICY_FAILURE
    # Alignment is checked before anybody looks for the guest.
    assert status(lambda: rig.fw.dbg_decrypt(99, BASE + 1, BASE, 16)) is S.INVALID_ADDRESS
    assert status(lambda: rig.fw.dbg_decrypt(99, BASE, BASE, 17)) is S.INVALID_LENGTH
    assert status(lambda: rig.fw.dbg_encrypt(99, BASE, BASE, 16)) is S.INVALID_GUEST


def test_the_version_and_policy_rules_of_a_session() -> None:
    for policy, expected in (
        (0x01 << 16 | 55 << 24, S.SUCCESS),
        (0x01 << 16 | 56 << 24, S.POLICY_FAILURE),
        (0x02 << 16, S.POLICY_FAILURE),
        (1 << 6, S.POLICY_FAILURE),
        (1 << 15, S.POLICY_FAILURE),
        (Policy.NODBG | Policy.SEV, S.SUCCESS),
    ):
        rig = Rig()
        opened = GuestOwner(policy).open_session(rig.fw.pdh_public())
        assert status(lambda: rig.fw.launch_start(policy, opened)) is expected, hex(policy)  # noqa: B023
    # Without a session nothing of this is checked.
    assert status(lambda: Rig().fw.launch_start(1 << 6)) is S.SUCCESS


@pytest.mark.parametrize("offset", [0, 20, 50, 70, 100])
def test_a_session_changed_anywhere_is_refused(offset: int) -> None:
    rig = Rig()
    opened = GuestOwner(0).open_session(rig.fw.pdh_public())
    blob = bytearray(opened.blob)
    blob[offset] ^= 1
    assert status(lambda: rig.fw.launch_start(0, LaunchSession(opened.owner_public, bytes(blob)))) is S.BAD_MEASUREMENT


def test_a_session_for_another_policy_platform_length_or_point() -> None:
    rig = Rig()
    opened = GuestOwner(0).open_session(rig.fw.pdh_public())
    assert status(lambda: rig.fw.launch_start(1, opened)) is S.BAD_MEASUREMENT
    other = Firmware(rig.dram, 4)
    other.init()
    assert status(lambda: other.launch_start(0, opened)) is S.BAD_MEASUREMENT
    assert status(lambda: rig.fw.launch_start(0, LaunchSession(opened.owner_public, bytes(127)))) is S.INVALID_LENGTH
    bad = LaunchSession(b"\x04" + bytes(96), opened.blob)
    assert status(lambda: rig.fw.launch_start(0, bad)) is S.INVALID_CERTIFICATE


def sp800_108(key: bytes, label: bytes, context: bytes) -> bytes:
    """The KDF with the endianness of the firmware, on the library's own construction."""
    fixed = label + b"\0" + context + struct.pack("<I", 128)
    counter = (1).to_bytes(4, "big")
    derived = KBKDFHMAC(
        hashes.SHA256(), Mode.CounterMode, 16, 4, 4, CounterLocation.BeforeFixed, None, None, fixed
    )  # fmt: skip
    # The library counts big-endian only, so the one block is made by hand and the library checks the hand.
    assert derived.derive(key) == hmac.digest(key, counter + fixed, "sha256")[:16]
    return hmac.digest(key, struct.pack("<I", 1) + fixed, "sha256")[:16]


def independent_session(pdh: bytes, policy: int, tek: bytes, tik: bytes) -> LaunchSession:
    private = ec.generate_private_key(ec.SECP384R1())
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), pdh)
    z = private.exchange(ec.ECDH(), peer)[::-1]
    nonce, iv = bytes(range(16)), bytes(range(16, 32))
    master = sp800_108(z, b"sev-master-secret", nonce)
    kek, kik = sp800_108(master, b"sev-kek", b""), sp800_108(master, b"sev-kik", b"")
    wrapped = Cipher(algorithms.AES(kek), modes.CTR(iv)).encryptor().update(tek + tik)
    blob = nonce + wrapped + iv
    blob += hmac.digest(kik, wrapped, "sha256") + hmac.digest(tik, struct.pack("<I", policy), "sha256")
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return LaunchSession(point, blob)


def test_launch_with_a_session_measurement_and_secret_made_independently() -> None:
    rig, policy = Rig(), 0x3
    tek, tik = b"T" * 16, b"I" * 16
    handle = rig.fw.launch_start(policy, independent_session(rig.fw.pdh_public(), policy, tek, tik))
    rig.fw.activate(handle, ASID)
    rig.dram.write_raw(BASE, DATA)
    rig.dram.write_raw(BASE + PAGE, DATA[::-1])
    rig.fw.launch_update_data(handle, BASE, PAGE)
    rig.fw.launch_update_data(handle, BASE + PAGE, 0x100)
    found = rig.fw.launch_measure(handle)
    digest = hashlib.sha256(DATA + DATA[::-1][:0x100]).digest()
    message = bytes([4, *rig.fw.version]) + struct.pack("<I", policy) + digest + found.nonce
    assert found.mac == hmac.digest(tik, message, "sha256")

    secret, iv = b"sixteen bytes ok" * 3, b"v" * 16
    data = Cipher(algorithms.AES(tek), modes.CTR(iv)).encryptor().update(secret)
    covered = b"\1" + struct.pack("<I", 0) + iv + struct.pack("<II", 48, 48) + data + found.mac
    packet = Packet(struct.pack("<I", 0) + iv + hmac.digest(tik, covered, "sha256"), data)
    for size, spa, expected in (
        (48, BASE + 0x208, S.INVALID_ADDRESS),
        (32, BASE + 0x200, S.INVALID_LENGTH),
        (48, BASE + 0x200, S.SUCCESS),
    ):
        assert status(lambda: rig.fw.launch_secret(handle, packet, spa, size)) is expected  # noqa: B023
    assert rig.dram.read_private(ASID, BASE + 0x200, 48) == secret
    broken = Packet(packet.header, data[:-1] + bytes([data[-1] ^ 1]))
    assert status(lambda: rig.fw.launch_secret(handle, broken, BASE, 48)) is S.BAD_MEASUREMENT
    flagged = b"\1" + struct.pack("<I", 1) + iv + struct.pack("<II", 48, 48) + data + found.mac
    packet = Packet(struct.pack("<I", 1) + iv + hmac.digest(tik, flagged, "sha256"), data)
    assert status(lambda: rig.fw.launch_secret(handle, packet, BASE, 48)) is S.UNSUPPORTED
    short = Packet(packet.header[:-1], data)
    assert status(lambda: rig.fw.launch_secret(handle, short, BASE, 48)) is S.INVALID_LENGTH
    assert not rig.fw.is_runnable(ASID)
    rig.fw.launch_finish(handle)
    assert rig.fw.is_runnable(ASID)


def test_every_measurement_has_a_nonce_of_its_own() -> None:
    rig = Rig()
    found = [rig.fw.launch_measure(rig.guest(asid=asid)) for asid in (ASID, OTHER_ASID)]
    assert found[0].nonce != found[1].nonce
    assert found[0].mac != found[1].mac


def test_handles_are_a_limited_resource() -> None:
    rig = Rig()
    handles = [rig.fw.launch_start(0) for _ in range(1024)]
    assert len(set(handles)) == 1024
    assert 0 not in handles
    assert status(lambda: rig.fw.launch_start(0)) is S.RESOURCE_LIMIT


def test_an_error_names_command_and_status() -> None:
    with pytest.raises(FirmwareError, match=r"^LAUNCH_FINISH: INVALID_PLATFORM_STATE \(0x01\)$"):
        Rig().fw.launch_finish(1)


def test_status_codes_are_those_of_the_specification() -> None:
    assert [code.value for code in Status] == list(range(0x19))
    assert (S.POLICY_FAILURE, S.ASID_OWNED, S.INVALID_GUEST, S.SECURE_DATA_INVALID) == (0x07, 0x0C, 0x10, 0x18)
