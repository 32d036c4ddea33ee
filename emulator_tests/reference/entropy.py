"""What a helper draws: words of RDRAND, and the bytes that a hello is made of.

No peer depends on how; it is so that both draw the same. Source: payload/random.s.
"""

from __future__ import annotations

from mh_abi import abi
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.peer import derive
from mh_emulator.secret import Secret

TRIES = 10
WORDS = 4
"""Of RDRAND in a hello."""
ALL_ONES = (1 << 64) - 1


class Entropy:
    """RDRAND of `generator`, and a time-stamp counter that stands at `tsc`."""

    def __init__(self, generator: Generator, tsc: int) -> None:
        self._generator = generator
        self._tsc = tsc
        self._drawn = 0
        """Hellos that were made; no start sets it back."""

    def word(self, before: int) -> int | None:
        """A word of RDRAND, which is not the one `before`; None where ten tries give none."""
        for _ in range(TRIES):
            drawn = self._generator.next()
            if drawn.carry and drawn.value not in (0, ALL_ONES, before):
                return drawn.value
        return None

    def derived(self, secret: Secret, words: list[int], ring: int) -> tuple[bytes, bytes]:
        """Nonce and X25519 scalar of a hello, from `words` and what never comes again."""
        self._drawn += 1
        numbers = (*words, self._tsc, self._drawn, ring)
        context = b"".join(number.to_bytes(8, "little") for number in numbers)
        made = derive(secret.key, abi.MH_KDF_LABEL_RANDOM, context, abi.MH_NONCE_BYTES + abi.MH_KEY_BYTES)
        return made[: abi.MH_NONCE_BYTES], made[abi.MH_NONCE_BYTES :]
