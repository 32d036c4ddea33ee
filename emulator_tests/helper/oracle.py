"""The keys of a session between two real helpers, with `mh_emulator.peer` and the scalars in their private memory."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mh_abi import abi
from mh_builder.image.model import Image
from mh_builder.schemes.space import HELPER_VA
from mh_emulator.host.machine import Machine
from mh_emulator.peer import SessionKeys, session_keys
from mh_emulator.secret import Secret

Helper = tuple[Image, Machine]


def private_bytes(image: Image, machine: Machine, symbol: str, size: int) -> bytes:
    """What the helper has in the variable `symbol`."""
    return machine.read_helper(image.symbol(symbol).value - HELPER_VA, size)


def scalar_of(image: Image, machine: Machine) -> bytes:
    """The X25519 scalar behind the helper's hello; there from HELLO to START."""
    return private_bytes(image, machine, "vcpu_scalar", abi.MH_KEY_BYTES)


def exchange(scalar: bytes, hello: bytes) -> bytes:
    """RFC 7748 of a scalar and the share in a hello."""
    share = X25519PublicKey.from_public_bytes(bytes(abi.mh_hello(hello).share))
    return X25519PrivateKey.from_private_bytes(scalar).exchange(share)


def overheard(
    secret: Secret, helpers: tuple[Helper, Helper], hellos: tuple[bytes, bytes], streams: int = 1
) -> SessionKeys:
    """The keys of the session that source and target are about to start with their hellos."""
    shared = exchange(scalar_of(*helpers[0]), hellos[1])
    assert shared == exchange(scalar_of(*helpers[1]), hellos[0])
    return session_keys(secret, *hellos, shared, streams)
