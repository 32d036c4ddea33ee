"""A host that plays the sender of a guest: the firmware does not ask who that is."""

from __future__ import annotations

import os

from mh_emulator.platform import Platform
from mh_emulator.psp.build import CONTEXT_DATA
from mh_emulator.psp.certificate import Certificate, Usage, make_certificate
from mh_emulator.psp.crypto import IV_BYTES, KEY_BYTES, NONCE_BYTES, SECRET_BYTES, private_key, shared_secret
from mh_emulator.psp.packet import Packet, seal
from mh_emulator.psp.session import Channel, Session, wrap_session


class Impostor:
    """Transport keys of the host's own choice, wrapped for `platform`."""

    def __init__(self, platform: Platform, policy: int) -> None:
        exported = platform.psp.pdh_cert_export()
        private = private_key(os.urandom(SECRET_BYTES))
        self._channel = Channel(os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))
        z = shared_secret(private, Certificate.parse(exported.pdh).public_key())
        blob = wrap_session(z, policy, self._channel, os.urandom(NONCE_BYTES), os.urandom(IV_BYTES))
        self.session = Session(make_certificate(private.public_key(), Usage.PDH, (0, 0)), blob)

    def packet(self, data: bytes) -> Packet:
        """A packet for RECEIVE_UPDATE_DATA."""
        return seal(self._channel, CONTEXT_DATA, data, os.urandom(IV_BYTES))
