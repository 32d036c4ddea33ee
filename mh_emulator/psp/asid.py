"""Address space identifiers: who has one, and when it can be given again.

Source: AMD-ASPFW, sev_mcmd.c (activate_common, sev_mcmd_deactivate, mcmd_df_flush_common), sev_guest.c, sev_plat.h. The
emulated machine has one core complex, so an ASID is in one state and not in one for each of them.
"""

from __future__ import annotations

from enum import Enum

from mh_emulator.dram.dram import Dram
from mh_emulator.psp.crypto import KEY_BYTES, kdf
from mh_emulator.psp.status import Status, require

# umc.c passes the label with its terminating NUL; the context is the controller's number, of which the emulated
# machine has one.
_MEMORY_KEY_LABEL = b"sev-vm-encryption-key-0\0"
_MEMORY_KEY_CONTEXT = bytes(4)


class AsidState(Enum):
    """What an ASID can be."""

    CLEAN = "clean"
    ALLOCATED = "allocated"
    """A guest has it that may not run yet."""
    IN_USE = "in use"
    """VMRUN accepts it."""
    DIRTY = "dirty"
    """Caches may hold data of the guest that had it."""


class Asids:
    """All ASIDs of the platform, and the keys of the memory controller behind them."""

    def __init__(self, dram: Dram) -> None:
        self._dram = dram
        self._part = dram.part
        self._flushed = False
        self._states = dict.fromkeys(range(1, self._part.asids + 1), AsidState.CLEAN)

    def reset(self) -> None:
        """INIT: who had them before is not known."""
        self._flushed = False
        self._states = dict.fromkeys(self._states, AsidState.DIRTY)

    def check_free(self, asid: int) -> None:
        """Refuse a number that is none, and one that a guest has."""
        require(asid in self._states, Status.INVALID_ASID)
        require(self._states[asid] not in (AsidState.ALLOCATED, AsidState.IN_USE), Status.ASID_OWNED)

    def give(self, asid: int, seed: bytes, *, es: bool, runnable: bool) -> None:
        """Install the key made of `seed`; `es` guests have the ASIDs below the part's MIN_SEV_ASID."""
        require(self._states[asid] is not AsidState.DIRTY, Status.DF_FLUSH_REQUIRED)
        require(es is (asid < self._part.min_asid), Status.INVALID_ASID)
        self._states[asid] = AsidState.IN_USE if runnable else AsidState.ALLOCATED
        self._dram.install_key(asid, kdf(seed, _MEMORY_KEY_LABEL, _MEMORY_KEY_CONTEXT, KEY_BYTES))

    def run(self, asid: int) -> None:
        """Let the guest that has it run."""
        self._states[asid] = AsidState.IN_USE

    def take(self, asid: int) -> None:
        """Take it back. The memory controller keeps the key."""
        if self._states[asid] is AsidState.IN_USE:
            self._states[asid] = AsidState.DIRTY
            self._flushed = False
        else:
            self._states[asid] = AsidState.CLEAN

    def note_wbinvd(self) -> None:
        """Every core has written back its caches."""
        self._flushed = True

    def flush(self) -> None:
        """DF_FLUSH: dirty ones become clean."""
        require(self._flushed, Status.WBINVD_REQUIRED)
        for asid, state in self._states.items():
            if state is AsidState.DIRTY:
                self._states[asid] = AsidState.CLEAN

    @property
    def all_clean(self) -> bool:
        """Whether no guest has one, and none needs DF_FLUSH."""
        return set(self._states.values()) == {AsidState.CLEAN}

    def is_runnable(self, asid: int) -> bool:
        """Whether VMRUN accepts it."""
        return self._states.get(asid) is AsidState.IN_USE
