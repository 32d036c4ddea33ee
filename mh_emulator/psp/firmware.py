"""The SEV firmware: commands of the secure processor, checked in the order of AMD's own source.

Source: SEV API (AMD 55766), chapters 5 and 6; AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c. Commands of the API that
are not here: provisioning (PEK_CSR, PEK_CERT_IMPORT, PEK_GEN, PLATFORM_RESET, GET_ID), DOWNLOAD_FIRMWARE, ACTIVATE_EX
and SWAP, which no host of a SEV guest needs. Those of SEV-SNP are in `mh_emulator.psp.snp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from mh_emulator.dram.dram import Dram
from mh_emulator.psp import debug, launch, platform, start, transport
from mh_emulator.psp.command import Command, PlatformState
from mh_emulator.psp.debug import Move
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.launch import MEASUREMENT_BYTES, REPORT_BYTES, Measurement
from mh_emulator.psp.packet import HEADER_BYTES, Packet
from mh_emulator.psp.platform import GuestStatus, PlatformStatus
from mh_emulator.psp.processor import Processor
from mh_emulator.psp.session import SESSION_BYTES, Session
from mh_emulator.psp.status import CommandError, Refused, Status
from mh_emulator.psp.transport import Departure, Incoming, Outgoing, Receiver
from mh_emulator.psp.vmsa import REGION_BYTES, VMSA_BYTES, TrustedRegion

P = ParamSpec("P")
T = TypeVar("T")

Watcher = Callable[[Command, Status], None]


class Firmware:
    """The secure processor of one platform; every command raises `CommandError` unless it succeeds.

    A command that does not succeed changes nothing. Addresses are system physical ones, sizes are in bytes.
    """

    def __init__(self, dram: Dram, seed: int) -> None:
        self._sp = Processor(dram, seed)
        self.watchers: list[Watcher] = []
        """Called with every command and what it returned."""

    @property
    def state(self) -> PlatformState:
        """PSTATE."""
        return self._sp.state

    @property
    def region(self) -> TrustedRegion | None:
        """Checksums of VMSAs, which the microcode uses too; only with SEV-ES, and after the first DF_FLUSH."""
        return self._sp.region

    @property
    def full_chain(self) -> bytes:
        """PEK, OCA and CEK with AMD's signature, which its server hands out; no command."""
        return self._sp.identity.full_chain

    def wbinvd(self) -> None:
        """WBINVD on every core, which the processor sees; no command, but DF_FLUSH wants it."""
        self._sp.memory.flush_all()
        self._sp.asids.note_wbinvd()

    def is_runnable(self, asid: int) -> bool:
        """Whether VMRUN accepts `asid`: activated, and its guest launched (AMD-ASPFW, mark_asid_valid)."""
        return self._sp.asids.is_runnable(asid)

    def init(self, region_spa: int = 0, region_bytes: int = REGION_BYTES) -> None:
        """INIT: take the platform into use, with SEV-ES if the host gives 1 MiB of memory for checksums."""
        self._run(Command.INIT, platform.init, region_spa, region_bytes)

    def shutdown(self) -> None:
        """SHUTDOWN: forget all guests; the memory controller keeps their keys."""
        self._run(Command.SHUTDOWN, platform.shutdown)

    def platform_status(self) -> PlatformStatus:
        """PLATFORM_STATUS."""
        return self._run(Command.PLATFORM_STATUS, platform.status)

    def pdh_cert_export(self) -> PlatformCertificates:
        """PDH_CERT_EXPORT."""
        return self._run(Command.PDH_CERT_EXPORT, platform.pdh_cert_export)

    def pdh_gen(self) -> None:
        """PDH_GEN: a new Diffie-Hellman key; sessions with the old one open nothing any more."""
        self._run(Command.PDH_GEN, platform.pdh_gen)

    def df_flush(self) -> None:
        """DF_FLUSH: make the ASIDs of deactivated guests usable again."""
        self._run(Command.DF_FLUSH, platform.df_flush)

    def activate(self, handle: int, asid: int) -> None:
        """ACTIVATE: bind the guest to `asid` and install its key in the memory controller."""
        self._run(Command.ACTIVATE, platform.activate, handle, asid)

    def deactivate(self, handle: int) -> None:
        """DEACTIVATE: take the ASID away; the memory controller keeps the key."""
        self._run(Command.DEACTIVATE, platform.deactivate, handle)

    def decommission(self, handle: int) -> None:
        """DECOMMISSION: forget the guest."""
        self._run(Command.DECOMMISSION, platform.decommission, handle)

    def guest_status(self, handle: int) -> GuestStatus:
        """GUEST_STATUS."""
        return self._run(Command.GUEST_STATUS, platform.guest_status, handle)

    def launch_start(self, policy: int, session: Session | None = None, shared_handle: int = 0) -> int:
        """LAUNCH_START: return the handle of a new guest, with the VEK of `shared_handle` if that is not 0."""
        return self._run(Command.LAUNCH_START, start.launch_start, policy, session, shared_handle)

    def launch_update_data(self, handle: int, spa: int, size: int) -> None:
        """LAUNCH_UPDATE_DATA: measure and encrypt `size` bytes at `spa` in place."""
        self._run(Command.LAUNCH_UPDATE_DATA, launch.update_data, handle, spa, size)

    def launch_update_pages(self, handle: int, spas: Sequence[int]) -> None:
        """LAUNCH_UPDATE_DATA for each page at `spas` in turn; they are refused together."""
        command = Command.LAUNCH_UPDATE_DATA
        self._run(command, launch.update_pages, handle, spas)
        for _ in spas[1:]:
            self._tell(command, Status.SUCCESS)

    def launch_update_vmsa(self, handle: int, spa: int, size: int = VMSA_BYTES) -> None:
        """LAUNCH_UPDATE_VMSA: measure a VMSA, give it a checksum, and encrypt it in place."""
        self._run(Command.LAUNCH_UPDATE_VMSA, launch.update_vmsa, handle, spa, size)

    def launch_measure(self, handle: int, size: int = MEASUREMENT_BYTES) -> Measurement:
        """LAUNCH_MEASURE: close the launch digest and return what the guest owner checks, in `size` bytes."""
        return self._run(Command.LAUNCH_MEASURE, launch.launch_measure, handle, size)

    def launch_secret(self, handle: int, packet: Packet, spa: int, size: int) -> None:
        """LAUNCH_SECRET: decrypt the owner's packet into `size` bytes of private memory at `spa`."""
        self._run(Command.LAUNCH_SECRET, launch.secret, handle, packet, spa, size)

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH: let the guest run, forget the transport keys."""
        self._run(Command.LAUNCH_FINISH, launch.finish, handle)

    def attestation(self, handle: int, nonce: bytes, size: int = REPORT_BYTES) -> bytes:
        """ATTESTATION: return the signed report about the launch, in `size` bytes."""
        return self._run(Command.ATTESTATION, launch.attestation, handle, nonce, size)

    def send_start(self, handle: int, receiver: Receiver, session_bytes: int = SESSION_BYTES) -> Departure:
        """SEND_START: choose transport keys and wrap them for `receiver`."""
        return self._run(Command.SEND_START, transport.send_start, handle, receiver, session_bytes)

    def send_update_data(
        self, handle: int, spa: int, size: int, header_bytes: int = HEADER_BYTES, room: int | None = None
    ) -> Packet:
        """SEND_UPDATE_DATA: wrap `size` bytes of private memory, into `room` bytes beside the header."""
        outgoing = Outgoing(spa, size, header_bytes, size if room is None else room)
        command = Command.SEND_UPDATE_DATA
        return self._run(command, transport.send_update, command, handle, outgoing)

    def send_update_vmsa(
        self, handle: int, spa: int, size: int = VMSA_BYTES, header_bytes: int = HEADER_BYTES, room: int | None = None
    ) -> Packet:
        """SEND_UPDATE_VMSA: the same for a VMSA whose checksum is right."""
        outgoing = Outgoing(spa, size, header_bytes, size if room is None else room)
        command = Command.SEND_UPDATE_VMSA
        return self._run(command, transport.send_update, command, handle, outgoing)

    def send_finish(self, handle: int) -> None:
        """SEND_FINISH: the guest has left; it cannot be activated any more."""
        self._run(Command.SEND_FINISH, transport.end, Command.SEND_FINISH, handle)

    def send_cancel(self, handle: int) -> None:
        """SEND_CANCEL: the guest stays."""
        self._run(Command.SEND_CANCEL, transport.end, Command.SEND_CANCEL, handle)

    def receive_start(self, policy: int, session: Session, shared_handle: int = 0) -> int:
        """RECEIVE_START: as LAUNCH_START, but for contents that come in packets."""
        return self._run(Command.RECEIVE_START, start.receive_start, policy, session, shared_handle)

    def receive_update_data(self, handle: int, packet: Packet, spa: int, size: int) -> None:
        """RECEIVE_UPDATE_DATA: put a packet into private memory."""
        command = Command.RECEIVE_UPDATE_DATA
        self._run(command, transport.receive_update, command, handle, Incoming(packet, spa, size))

    def receive_update_vmsa(self, handle: int, packet: Packet, spa: int, size: int = VMSA_BYTES) -> None:
        """RECEIVE_UPDATE_VMSA: put a VMSA into private memory, with a checksum of this platform."""
        command = Command.RECEIVE_UPDATE_VMSA
        self._run(command, transport.receive_update, command, handle, Incoming(packet, spa, size))

    def receive_finish(self, handle: int) -> None:
        """RECEIVE_FINISH: let the guest run."""
        self._run(Command.RECEIVE_FINISH, transport.end, Command.RECEIVE_FINISH, handle)

    def copy(self, handle: int, source: int, destination: int, size: int) -> None:
        """COPY: move private memory to another system physical address, under the same key."""
        self._run(Command.COPY, debug.copy, handle, Move(source, destination, size))

    def dbg_decrypt(self, handle: int, source: int, destination: int, size: int) -> None:
        """DBG_DECRYPT: copy private memory to where the host can read it."""
        self._run(Command.DBG_DECRYPT, debug.decrypt, handle, Move(source, destination, size))

    def dbg_encrypt(self, handle: int, source: int, destination: int, size: int) -> None:
        """DBG_ENCRYPT: copy host memory into private memory."""
        self._run(Command.DBG_ENCRYPT, debug.encrypt, handle, Move(source, destination, size))

    def _run(
        self, command: Command, body: Callable[Concatenate[Processor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        status = Status.SUCCESS
        try:
            return body(self._sp, *args, **kwargs)
        except Refused as refusal:
            status = refusal.status
            raise CommandError(command.name, status, refusal.length) from None
        finally:
            self._tell(command, status)

    def _tell(self, command: Command, status: Status) -> None:
        for watcher in self.watchers:
            watcher(command, status)
