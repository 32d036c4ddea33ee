"""The guest owner: opens a session with a platform, checks what was launched, then hands over a secret.

Source: SEV API (AMD 55766), sections 2.2, 6.5.1 and 6.6; AMDESE/sev-tool, commands.cpp.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric import ec

from mh_emulator.psp import session
from mh_emulator.psp.firmware import Measurement
from mh_emulator.psp.session import Channel, LaunchSession, Packet
from mh_emulator.psp.state import API_MAJOR, API_MINOR, BUILD

_SECRET_UNIT = 16


class OwnerRefuses(Exception):
    """The guest owner does not trust what was launched; one line with what was expected and found."""


class GuestOwner:
    """Somebody who owns a guest with `policy`; `version` is the firmware's API major, minor and build.

    `random_bytes` makes transport keys, nonces and IVs.
    """

    def __init__(
        self,
        policy: int,
        version: tuple[int, int, int] = (API_MAJOR, API_MINOR, BUILD),
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.policy = policy
        self._version = version
        self._random = random_bytes
        self._channel: Channel | None = None

    def open_session(self, pdh_public: bytes) -> LaunchSession:
        """Choose transport keys and wrap them for the platform with that PDH (P-384 point, X9.62)."""
        private = ec.derive_private_key(int.from_bytes(self._random(47), "big") + 1, session.CURVE)
        self._channel = Channel(self._random(session.KEY_BYTES), self._random(session.KEY_BYTES))
        z = session.shared_secret(private, pdh_public)
        nonce, iv = self._random(session.NONCE_BYTES), self._random(session.IV_BYTES)
        blob = session.wrap_session(z, self.policy, self._channel, nonce, iv)
        return LaunchSession(session.public_bytes(private), blob)

    def check_measurement(self, measurement: Measurement, contents: Iterable[bytes]) -> None:
        """Compare with what `contents`, in the order of their launch, must give; raise `OwnerRefuses`."""
        channel = self._open_channel()
        digest = hashlib.sha256()
        for data in contents:
            digest.update(data)
        expected = session.measure(channel.tik, self._version, self.policy, digest.digest(), measurement.nonce)
        if not hmac.compare_digest(expected, measurement.mac):
            raise OwnerRefuses(
                f"launch measurement: expected {expected.hex()} (policy {self.policy:#x}, "
                f"digest {digest.hexdigest()}), found {measurement.mac.hex()}"
            )
        channel.measurement = measurement.mac

    def check_status_policy(self, policy: int) -> None:
        """Compare with the policy that GUEST_STATUS shows; raise `OwnerRefuses`."""
        if policy != self.policy:
            raise OwnerRefuses(f"guest policy: expected {self.policy:#x}, found {policy:#x}")

    def wrap_secret(self, measurement: Measurement, contents: Iterable[bytes], secret: bytes) -> Packet:
        """Check the measurement, then encrypt `secret`, padded with zeros to 16 bytes; raise `OwnerRefuses`."""
        self.check_measurement(measurement, contents)
        padded = secret + bytes(-len(secret) % _SECRET_UNIT)
        return session.wrap_secret(self._open_channel(), padded, self._random(session.IV_BYTES))

    def _open_channel(self) -> Channel:
        if self._channel is None:
            raise OwnerRefuses("launch measurement: expected one of a session with this owner, found none opened")
        return self._channel
