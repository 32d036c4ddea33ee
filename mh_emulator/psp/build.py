"""Firmware builds: what differs between them, as data.

Source: AMD-ASPFW (SEV firmware 1.55.25 for Genoa), sev_globals.h, sev_mcmd.c, ccp_direct_cipher.c. The other parts
run builds whose source is not public: their versions are those that Linux reports on such machines (ccp: "SEV API:0.17
build:48", "0.24 build:14", "1.55 build:29"), and where nothing is known of one, it behaves as Genoa's; a packet of VMSA
data carries in older builds the context that SEV API 0.17 to 0.24 give it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CONTEXT_SECRET, CONTEXT_DATA, CONTEXT_VMSA, CONTEXT_MEASURE = 0x01, 0x02, 0x03, 0x04
"""First byte of what a MAC covers."""


@dataclass(frozen=True, slots=True)
class FirmwareBuild:
    """One build."""

    major: int
    minor: int
    build: int
    vmsa_context: int
    """First byte under the MAC of SEND_UPDATE_VMSA and RECEIVE_UPDATE_VMSA."""
    scratch_bytes: int
    """Most that one packet holds."""
    packet_min_bytes: int
    """Least that one packet of SEND_UPDATE and RECEIVE_UPDATE holds."""

    @property
    def version(self) -> tuple[int, int, int]:
        """API major, minor and build, as measured."""
        return self.major, self.minor, self.build


_SPECIFIED = (CONTEXT_VMSA, 16 << 10, 16)
_GENOA = (CONTEXT_DATA, 0x5000, 48)

_ALL = (
    FirmwareBuild(0, 17, 48, *_SPECIFIED),
    FirmwareBuild(0, 24, 14, *_SPECIFIED),
    FirmwareBuild(1, 55, 29, *_GENOA),
    FirmwareBuild(1, 55, 25, *_GENOA),
)

BUILDS: Mapping[str, FirmwareBuild] = MappingProxyType({".".join(map(str, build.version)): build for build in _ALL})
"""By version; `Part.firmware` says which a part runs."""
