"""The guest owner: opens a session with a platform, checks what was launched, then hands over a secret.

Source: SEV API (AMD 55766), sections 2.2, 6.5.1 and 6.6; AMDESE/sev-tool, commands.cpp.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError
from mh_emulator.psp.build import CONTEXT_SECRET
from mh_emulator.psp.certificate import Algorithm, Certificate, Usage, make_certificate
from mh_emulator.psp.crypto import (
    IV_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    SECRET_BYTES,
    RandomBytes,
    private_key,
    shared_secret,
)
from mh_emulator.psp.digest import LaunchDigest
from mh_emulator.psp.identity import validate_platform
from mh_emulator.psp.launch import Measurement
from mh_emulator.psp.packet import Packet, measure, seal
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Channel, Session, wrap_session
from mh_emulator.psp.status import Refused

_SECRET_UNIT = 16

Version = tuple[int, int, int]

POLICY = Policy.NODBG | Policy.NOKS | Policy.NOSEND
"""What a careful owner demands: no debug access, no key sharing, no sending by the firmware (SEV API, chapter 3).

Without NOSEND a host has the firmware seal the guest's RAM for a key of the host's own; the helper does not need it.
"""

POLICY_ES = POLICY | Policy.ES
"""And encrypted registers."""


class OwnerRefuses(MigrationHelperError):
    """The guest owner does not trust what was launched; one line with what was expected and found."""


class Credentials(NamedTuple):
    """What a host shows of its platform before a launch."""

    pdh: bytes
    """Certificate of its Diffie-Hellman key."""
    chain: bytes
    """PEK, OCA, CEK; the CEK signed by AMD."""
    amd: bytes
    """ASK, ARK."""
    version: Version
    """API major, minor and build, as PLATFORM_STATUS says: the measurement proves it later."""


class Expected:
    """What an owner expects to have been launched, one content after the other: digests, for contents may be large."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        self._all = LaunchDigest()
        self.digests: list[bytes] = []
        """SHA-256 of each content."""
        for content in contents:
            self.add(content)

    def add(self, content: bytes) -> None:
        """The next one; VMSAs are such too."""
        is_first = not self.digests
        self._all.update(content)
        self.digests.append(self._all.digest() if is_first else hashlib.sha256(content).digest())

    @property
    def launch_digest(self) -> bytes:
        """SHA-256 over all of them, in their order (SEV API, section 6.5.1)."""
        return self._all.digest()


class GuestOwner:
    """Somebody who owns a guest with `policy`, and gives a secret to nothing but that guest.

    `oldest` is the oldest firmware that is trusted. `helper` is the SHA-256 of the helper as it is launched
    (`HelperImage.digest`), which has to be the first of the contents; without it there is no helper to look for.
    `rest` are those of all other contents, in their order, where the owner knows them.
    """

    def __init__(
        self,
        policy: int,
        oldest: Version = (0, 0, 0),
        helper: bytes | None = None,
        rest: Sequence[bytes] | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self.policy = policy
        self._oldest = oldest
        self._helper = helper
        self._rest = rest
        self._random = random_bytes
        self._channel: Channel | None = None
        self._version: Version = oldest

    def open_session(self, shown: Credentials) -> Session:
        """Choose transport keys and wrap them for the platform that `shown` proves; raise `OwnerRefuses`."""
        pdh = self._check_platform(shown)
        private = private_key(self._random(SECRET_BYTES))
        channel = Channel(self._random(KEY_BYTES), self._random(KEY_BYTES))
        nonce, iv = self._random(NONCE_BYTES), self._random(IV_BYTES)
        blob = wrap_session(shared_secret(private, pdh.public_key()), self.policy, channel, nonce, iv)
        self._channel, self._version = channel, shown.version
        return Session(make_certificate(private.public_key(), Usage.PDH, shown.version[:2]), blob)

    def check_status_policy(self, policy: int) -> None:
        """Compare with the policy that GUEST_STATUS shows; raise `OwnerRefuses`."""
        if policy != self.policy:
            raise OwnerRefuses(f"guest policy: expected {self.policy:#x}, found {policy:#x}")

    def expect(self) -> Expected:
        """For a host to note what it launches."""
        return Expected()

    def check_measurement(self, measurement: Measurement, expected: Expected) -> Channel:
        """Compare with what must have been launched; return the session, or raise `OwnerRefuses`."""
        if self._channel is None:
            raise OwnerRefuses("launch measurement: expected one of a session with this owner, found none opened")
        digest = expected.launch_digest
        mac = measure(self._channel.tik, self._version, self.policy, digest, measurement.nonce)
        if not hmac.compare_digest(mac, measurement.mac):
            raise OwnerRefuses(
                f"launch measurement: expected {mac.hex()} (policy {self.policy:#x}, "
                f"firmware {_dotted(self._version)}, digest {digest.hex()}), found {measurement.mac.hex()}"
            )
        return self._channel

    def wrap_secret(self, measurement: Measurement, expected: Expected, secret: bytes) -> Packet:
        """Encrypt `secret`, padded with zeros to 16 bytes, if `measurement` is that of what is `expected`.

        The helper, and the rest, have to be what this owner knows. Raises `OwnerRefuses`.
        """
        self._check_helper(expected)
        self._check_rest(expected)
        bound = replace(self.check_measurement(measurement, expected), measurement=measurement.mac)
        padded = secret + bytes(-len(secret) % _SECRET_UNIT)
        return seal(bound, CONTEXT_SECRET, padded, self._random(IV_BYTES))

    def _check_platform(self, shown: Credentials) -> Certificate:
        if shown.version < self._oldest:
            raise OwnerRefuses(f"firmware: expected {_dotted(self._oldest)} or later, found {_dotted(shown.version)}")
        try:
            validate_platform(shown.pdh, shown.chain, shown.amd)
            pdh = Certificate.parse(shown.pdh)
            pdh.check_body(Usage.PDH, Algorithm.ECDH_SHA256)
        except Refused as refusal:
            raise OwnerRefuses(f"platform certificates: {refusal.status.name}") from None
        return pdh

    def _check_helper(self, expected: Expected) -> None:
        if self._helper is None:
            return
        found = expected.digests[0] if expected.digests else hashlib.sha256().digest()
        if found != self._helper:
            raise OwnerRefuses(f"helper: expected SHA-256 {self._helper.hex()}, found {found.hex()}")

    def _check_rest(self, expected: Expected) -> None:
        if self._rest is None:
            return
        found = expected.digests[1:]
        if len(found) != len(self._rest):
            raise OwnerRefuses(f"contents behind the helper: expected {len(self._rest)}, found {len(found)}")
        for number, (known, digest) in enumerate(zip(self._rest, found, strict=True), 1):
            if digest != known:
                raise OwnerRefuses(f"content {number}: expected SHA-256 {known.hex()}, found {digest.hex()}")


def _dotted(version: Version) -> str:
    return "{}.{} build {}".format(*version)
