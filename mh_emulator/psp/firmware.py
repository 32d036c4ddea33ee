"""The SEV firmware: commands of the secure processor, checked in the order of AMD's own source.

Source: SEV API (AMD 55766), chapters 5 and 6; AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c, sev_guest.c, umc.c.
"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec

from mh_builder.paging import MIB, PAGE_BYTES
from mh_emulator.dram import BLOCK_BYTES, Dram
from mh_emulator.psp import session
from mh_emulator.psp.session import BadMacError, Channel, LaunchSession, Packet
from mh_emulator.psp.state import (
    ALLOWED,
    API_MAJOR,
    API_MINOR,
    BUILD,
    RESERVED_POLICY,
    Command,
    GuestContext,
    GuestState,
    PlatformState,
    Policy,
    policy_version,
)
from mh_emulator.psp.status import FirmwareError, Status
from mh_emulator.psp.vmsa import REGION_BYTES, VMSA_BYTES, TrustedRegion, checksum_address

SECRET_MAX_BYTES = 0x5000
COPY_WINDOW_BYTES = 64 * MIB
GUESTS_MAX = 1024

# umc.c passes the label with its terminating NUL; the context is the controller's number, of which
# the emulated machine has one.
_MEMORY_KEY_LABEL = b"sev-vm-encryption-key-0\0"
_MEMORY_KEY_CONTEXT = bytes(4)


class Measurement(NamedTuple):
    """What LAUNCH_MEASURE returns."""

    mac: bytes
    nonce: bytes


class GuestStatus(NamedTuple):
    """What GUEST_STATUS returns; all zero for an unknown handle."""

    policy: int
    asid: int
    state: GuestState


class Firmware:
    """The secure processor of one platform; every command raises `FirmwareError` unless it succeeds."""

    def __init__(self, dram: Dram, seed: int) -> None:
        self._dram = dram
        self._part = dram.part
        self._random = random.Random(f"psp {seed}")  # noqa: S311
        self._pdh = ec.derive_private_key(self._random.getrandbits(383) + 1, session.CURVE)
        self._guests: dict[int, GuestContext] = {}
        self._digests: dict[int, hashlib._Hash] = {}
        self._dirty: set[int] = set()
        self._flushed = False
        self._region_spa = 0
        self.region: TrustedRegion | None = None
        """Checksums of VMSAs, which the microcode uses too; only with SEV-ES, and after the first DF_FLUSH."""
        self.state = PlatformState.UNINIT

    def pdh_public(self) -> bytes:
        """Platform Diffie-Hellman key: P-384 public point, X9.62 uncompressed."""
        return session.public_bytes(self._pdh)

    @property
    def version(self) -> tuple[int, int, int]:
        """API major, minor and build."""
        return API_MAJOR, API_MINOR, BUILD

    def init(self, region_spa: int = 0) -> None:
        """INIT: take the platform into use, with SEV-ES if the host gives memory for checksums (1 MiB, aligned)."""
        if self.state is not PlatformState.UNINIT:
            _fail(Command.INIT, Status.INVALID_PLATFORM_STATE)
        if region_spa % REGION_BYTES:
            _fail(Command.INIT, Status.INVALID_ADDRESS)
        self._region_spa = region_spa
        self._dirty = set(range(1, self._part.asids + 1))
        self._flushed = False
        self.state = PlatformState.INIT

    def shutdown(self) -> None:
        """SHUTDOWN: forget all guests and their keys."""
        for guest in self._guests.values():
            if guest.asid:
                self._dram.remove_key(guest.asid)
        self._guests.clear()
        self._digests.clear()
        self._dirty.clear()
        self._region_spa, self.region = 0, None
        self.state = PlatformState.UNINIT

    def launch_start(self, policy: int, launch: LaunchSession | None = None, shared_handle: int = 0) -> int:
        """LAUNCH_START: return the handle of a new guest, with the VEK of `shared_handle` if that is not 0."""
        command = Command.LAUNCH_START
        if self.state is PlatformState.UNINIT:
            _fail(command, Status.INVALID_PLATFORM_STATE)
        # Without a session the firmware checks neither the version nor the reserved bits.
        channel = Channel() if launch is None else self._open_channel(command, policy, launch)
        seed = self._bytes(session.KEY_BYTES) if not shared_handle else self._share(command, policy, shared_handle)
        if len(self._guests) == GUESTS_MAX:
            _fail(command, Status.RESOURCE_LIMIT)
        if policy & Policy.ES and not self._region_spa:
            _fail(command, Status.UNSUPPORTED)
        handle = next(number for number in range(1, GUESTS_MAX + 1) if number not in self._guests)
        self._guests[handle] = GuestContext(handle, policy, seed, channel)
        self._digests[handle] = hashlib.sha256()
        self.state = PlatformState.WORKING
        return handle

    def activate(self, handle: int, asid: int) -> None:
        """ACTIVATE: bind the guest to `asid` and install its key in the memory controller."""
        command = Command.ACTIVATE
        guest = self._guest(command, handle)
        if not 1 <= asid <= self._part.asids:
            _fail(command, Status.INVALID_ASID)
        if any(other.asid == asid for other in self._guests.values()):
            _fail(command, Status.ASID_OWNED)
        if guest.asid:
            _fail(command, Status.ACTIVE)
        if asid in self._dirty:
            _fail(command, Status.DF_FLUSH_REQUIRED)
        if guest.es is not (asid < self._part.min_asid):
            _fail(command, Status.INVALID_ASID)
        guest.asid = asid
        self._dram.install_key(asid, session.kdf(guest.key_seed, _MEMORY_KEY_LABEL, _MEMORY_KEY_CONTEXT))

    def deactivate(self, handle: int) -> None:
        """DEACTIVATE: take the ASID away; the memory controller keeps the key."""
        guest = self._guest(Command.DEACTIVATE, handle)
        self._need_asid(Command.DEACTIVATE, guest)
        if guest.state in (GuestState.RUNNING, GuestState.SUPDATE):
            self._dirty.add(guest.asid)
            self._flushed = False
        guest.asid = 0

    def decommission(self, handle: int) -> None:
        """DECOMMISSION: forget the guest."""
        guest = self._guest(Command.DECOMMISSION, handle)
        if guest.asid:
            _fail(Command.DECOMMISSION, Status.ACTIVE)
        if self.region is not None:
            for address in guest.vmsas:
                self.region.free(address)
        del self._guests[handle], self._digests[handle]
        if not self._guests:
            self.state = PlatformState.INIT

    def wbinvd(self) -> None:
        """Note that every core has written back its caches; no command, but DF_FLUSH wants it."""
        self._flushed = True

    def df_flush(self) -> None:
        """DF_FLUSH: make the ASIDs of deactivated guests usable again."""
        if self.state is PlatformState.UNINIT:
            _fail(Command.DF_FLUSH, Status.INVALID_PLATFORM_STATE)
        if not self._flushed:
            _fail(Command.DF_FLUSH, Status.WBINVD_REQUIRED)
        self._dirty.clear()
        if self._region_spa and self.region is None:
            self.region = TrustedRegion(self._region_spa)

    def guest_status(self, handle: int) -> GuestStatus:
        """GUEST_STATUS."""
        if self.state is PlatformState.UNINIT:
            _fail(Command.GUEST_STATUS, Status.INVALID_PLATFORM_STATE)
        guest = self._guests.get(handle)
        if guest is None:
            return GuestStatus(0, 0, GuestState.UNINIT)
        return GuestStatus(guest.policy, guest.asid, guest.state)

    def launch_update_data(self, handle: int, spa: int, size: int) -> None:
        """LAUNCH_UPDATE_DATA: measure and encrypt `size` bytes at `spa` in place."""
        command = Command.LAUNCH_UPDATE_DATA
        guest = self._guest(command, handle)
        self._need_asid(command, guest)
        if spa % BLOCK_BYTES:
            _fail(command, Status.INVALID_ADDRESS)
        if size % BLOCK_BYTES or not size:
            _fail(command, Status.INVALID_LENGTH)
        data = self._dram.read_raw(spa, size)
        self._digests[handle].update(data)
        self._dram.write_private(guest.asid, spa, data)

    def launch_update_vmsa(self, handle: int, spa: int, size: int = VMSA_BYTES) -> None:
        """LAUNCH_UPDATE_VMSA: measure a VMSA, give it a checksum, and encrypt it in place."""
        command = Command.LAUNCH_UPDATE_VMSA
        if size != VMSA_BYTES:
            _fail(command, Status.INVALID_LENGTH)
        guest = self._guest(command, handle)
        if not guest.es:
            _fail(command, Status.UNSUPPORTED)
        self._need_asid(command, guest)
        if spa % BLOCK_BYTES:
            _fail(command, Status.INVALID_ADDRESS)
        vmsa = self._dram.read_raw(spa, size)
        self._digests[handle].update(vmsa)
        with_checksum = self.region.set_up(vmsa) if self.region else None
        if with_checksum is None:
            _fail(command, Status.RESOURCE_LIMIT)
        guest.vmsas.append(checksum_address(with_checksum))
        self._dram.write_private(guest.asid, spa, with_checksum)

    def launch_measure(self, handle: int) -> Measurement:
        """LAUNCH_MEASURE: close the launch digest and return what the guest owner checks."""
        guest = self._guest(Command.LAUNCH_MEASURE, handle)
        nonce = self._bytes(session.NONCE_BYTES)
        digest = self._digests[handle].digest()
        guest.channel.measurement = session.measure(guest.channel.tik, self.version, guest.policy, digest, nonce)
        guest.state = GuestState.LSECRET
        return Measurement(guest.channel.measurement, nonce)

    def launch_secret(self, handle: int, packet: Packet, spa: int, size: int) -> None:
        """LAUNCH_SECRET: decrypt the owner's packet into `size` bytes of private memory at `spa`."""
        command = Command.LAUNCH_SECRET
        guest = self._known_guest(command, handle)
        if spa % BLOCK_BYTES:
            _fail(command, Status.INVALID_ADDRESS)
        is_length_good = 0 < size <= SECRET_MAX_BYTES and size % BLOCK_BYTES == 0 and size == len(packet.data)
        if len(packet.header) != session.HEADER_BYTES or not is_length_good:
            _fail(command, Status.INVALID_LENGTH)
        self._need_state(command, guest)
        self._need_asid(command, guest)
        try:
            flags, secret = session.unwrap_secret(guest.channel, packet)
        except BadMacError:
            _fail(command, Status.BAD_MEASUREMENT)
        if flags & session.FLAG_COMPRESSED:
            _fail(command, Status.UNSUPPORTED)
        self._dram.write_private(guest.asid, spa, secret)

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH: let the guest run, forget the transport keys."""
        guest = self._guest(Command.LAUNCH_FINISH, handle)
        guest.channel = Channel()
        guest.state = GuestState.RUNNING

    def copy(self, handle: int, source: int, destination: int, size: int) -> None:
        """COPY: move private memory to another system physical address, under the same key."""
        command = Command.COPY
        guest = self._guest(command, handle)
        self._need_asid(command, guest)
        if not size or size % PAGE_BYTES:
            _fail(command, Status.INVALID_LENGTH)
        if source % PAGE_BYTES or destination % PAGE_BYTES:
            _fail(command, Status.INVALID_ADDRESS)
        if source == destination:
            return
        for start in (source, destination):
            if start // COPY_WINDOW_BYTES != (start + size - 1) // COPY_WINDOW_BYTES:
                _fail(command, Status.INVALID_PARAM)
        self._dram.write_private(guest.asid, destination, self._dram.read_private(guest.asid, source, size))

    def dbg_decrypt(self, handle: int, source: int, destination: int, size: int) -> None:
        """DBG_DECRYPT: copy private memory to where the host can read it."""
        guest = self._debuggable(Command.DBG_DECRYPT, handle, source, destination, size)
        self._dram.write_raw(destination, self._dram.read_private(guest.asid, source, size))

    def dbg_encrypt(self, handle: int, source: int, destination: int, size: int) -> None:
        """DBG_ENCRYPT: copy host memory into private memory."""
        guest = self._debuggable(Command.DBG_ENCRYPT, handle, source, destination, size)
        self._dram.write_private(guest.asid, destination, self._dram.read_raw(source, size))

    def is_runnable(self, asid: int) -> bool:
        """Whether VMRUN accepts `asid`: activated, and its guest launched (AMD-ASPFW, mark_asid_valid)."""
        running = (GuestState.RUNNING, GuestState.SUPDATE)
        return any(guest.asid == asid and guest.state in running for guest in self._guests.values())

    def _open_channel(self, command: Command, policy: int, launch: LaunchSession) -> Channel:
        if len(launch.blob) != session.SESSION_BYTES:
            _fail(command, Status.INVALID_LENGTH)
        try:
            z = session.shared_secret(self._pdh, launch.owner_public)
        except ValueError:
            _fail(command, Status.INVALID_CERTIFICATE)
        try:
            channel = session.unwrap_session(z, policy, launch.blob)
        except BadMacError:
            _fail(command, Status.BAD_MEASUREMENT)
        if policy_version(policy) > (API_MAJOR, API_MINOR) or policy & RESERVED_POLICY:
            _fail(command, Status.POLICY_FAILURE)
        return channel

    def _share(self, command: Command, policy: int, handle: int) -> bytes:
        shared = self._guests.get(handle)
        if shared is None:
            _fail(command, Status.INVALID_GUEST)
        if policy != shared.policy or shared.policy & Policy.NOKS:
            _fail(command, Status.POLICY_FAILURE)
        return shared.key_seed

    def _debuggable(self, command: Command, handle: int, source: int, destination: int, size: int) -> GuestContext:
        if self.state is not PlatformState.WORKING:
            _fail(command, Status.INVALID_PLATFORM_STATE)
        if (source | destination) % BLOCK_BYTES:
            _fail(command, Status.INVALID_ADDRESS)
        if size % BLOCK_BYTES:
            _fail(command, Status.INVALID_LENGTH)
        guest = self._known_guest(command, handle)
        if guest.policy & Policy.NODBG:
            _fail(command, Status.POLICY_FAILURE)
        self._need_asid(command, guest)
        return guest

    def _guest(self, command: Command, handle: int) -> GuestContext:
        guest = self._known_guest(command, handle)
        self._need_state(command, guest)
        return guest

    def _known_guest(self, command: Command, handle: int) -> GuestContext:
        if self.state is not PlatformState.WORKING:
            _fail(command, Status.INVALID_PLATFORM_STATE)
        guest = self._guests.get(handle)
        if guest is None:
            _fail(command, Status.INVALID_GUEST)
        return guest

    def _need_state(self, command: Command, guest: GuestContext) -> None:
        if guest.state not in ALLOWED[command]:
            _fail(command, Status.INVALID_GUEST_STATE)

    def _need_asid(self, command: Command, guest: GuestContext) -> None:
        if not guest.asid:
            _fail(command, Status.INACTIVE)

    def _bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)


def _fail(command: Command, status: Status) -> NoReturn:
    raise FirmwareError(command.value, status)
