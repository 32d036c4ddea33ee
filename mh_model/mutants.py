"""Guards of the protocol, each dropped in turn: the model must notice."""

from __future__ import annotations

from dataclasses import dataclass

from mh_model.configurations import (
    BOTH_LANES,
    EPOCHS,
    FAIR,
    FAIR_RESTARTS,
    HELLOS_3,
    ONE_STREAM,
    RESTARTS,
    RINGS,
    Configuration,
)
from mh_model.spin import Property


@dataclass(frozen=True)
class Mutant:
    """Guards dropped by macros, in words and with the routine, and the property that is then violated.

    None: the model still holds, because another guard makes up for this one.
    """

    drops: str
    guard: str
    configuration: Configuration
    violates: Property | None

    @property
    def defines(self) -> tuple[str, ...]:
        """The configuration's macros and those of the mutant."""
        return (*self.configuration.defines, *self.drops.split())


MUTANTS = (
    Mutant("DROP_BUSY_RULE", "START: BUSY while another vCPU works in a session", RINGS, Property.SESSION),
    Mutant(
        "DROP_WAKE_LOCK", "entry, ring: the block is taken before the look at the generation", RINGS, Property.SESSION
    ),
    Mutant("DROP_GENERATION_CHECK", "attend: the generation before every chunk", RINGS, Property.BAD_TAG),
    Mutant("DROP_ENDING_FLAG", "end_session: `ending` while Ks is wiped", RINGS, Property.SESSION),
    Mutant("DROP_ENDING_LOCK", "end_session: `ending` is seen before the generation is read", RINGS, Property.SESSION),
    Mutant("DROP_ENDING_KEPT", "entry: a wipe that was cut off is done", RESTARTS, Property.SESSION_KEY),
    Mutant("DROP_ENTRY_RESUMES", "entry: `ending` that was left behind is cleared", FAIR_RESTARTS, Property.FAIR),
    Mutant("DROP_SECRET_WIPE", "end_session: Ks is wiped", RINGS, Property.SESSION_KEY),
    Mutant(
        "DROP_ENTRY_WIPE", "entry of ring 0: Ks of a START that was cut off is wiped", RESTARTS, Property.SESSION_KEY
    ),
    Mutant("DROP_ENTRY_ENDS", "entry: a start of a vCPU ends its session", RESTARTS, Property.SESSION),
    Mutant("DROP_JOIN_MARK", "JOIN: a session's phase before anything shared is touched", RINGS, Property.SESSION),
    Mutant("DROP_JOIN_LOCK", "JOIN: that phase is seen before the generation is read again", RINGS, Property.SESSION),
    Mutant("DROP_JOIN_RECHECK", "JOIN: the generation is read again", RINGS, Property.SESSION),
    Mutant("DROP_FAIL_CLOSED", "IMPORT: a bad tag ends the session", RINGS, Property.BAD_TAG),
    Mutant("LATE_GIVE_BACK", "IMPORT: pages are given back before the session ends", RINGS, Property.EPOCH_PAGE),
    Mutant("DROP_EPOCH_BITS", "claim: a page of this epoch", RINGS, Property.EPOCH_PAGE),
    Mutant("DROP_LOCKED_CLAIM", "claim: test and set in one", RINGS, Property.EPOCH_PAGE),
    Mutant("DROP_SESSION_BITS", "claim: after RESUME, a page of the session", EPOCHS, Property.SESSION_PAGE),
    Mutant("DROP_ENDED_WAIT", "EPOCH: a ring waits for the others", EPOCHS, Property.EPOCH),
    Mutant("DROP_PENDING", "EXPORT, IMPORT: EPOCH_PENDING", EPOCHS, Property.EPOCH_PAGE),
    Mutant("DROP_CLEAR_FIRST", "EPOCH: bits are cleared before the epoch counts up", EPOCHS, Property.EPOCH_PAGE),
    Mutant("DROP_START_CLEAR", "START: bits are cleared", FAIR, Property.FAIR),
    Mutant("DROP_NONCE_ONCE STARTS=3", "START: a HELLO serves one", HELLOS_3, Property.NUMBER_ONCE),
    Mutant("DROP_ROLE_ORDER", "KDF: the source's hello comes first", HELLOS_3, Property.NUMBER_ONCE),
    Mutant("DROP_HELLO_TAG", "START: the tag of the peer's hello", HELLOS_3, Property.PEER),
    Mutant("DROP_COUNT_IN_KEY", "KDF: the number of rings", BOTH_LANES, Property.COMPLETE),
    Mutant("DROP_STREAM_IN_KEY", "KDF: the stream", BOTH_LANES, Property.NUMBER_ONCE),
    Mutant("DROP_STREAM_IN_KEY DROP_STREAM_CHECK", "IMPORT: and the stream in the header", BOTH_LANES, Property.PREFIX),
    Mutant("DROP_SEQUENCE_CHECK", "IMPORT: the next sequence number", ONE_STREAM, Property.PREFIX),
    Mutant("DROP_TOTALS DROP_URGENT_COUNT", "EPOCH, FINISH: both counts", BOTH_LANES, Property.COMPLETE),
    Mutant("DROP_TOTALS", "FINISH: pages; sequence numbers and the urgent count tell as well", BOTH_LANES, None),
    Mutant("DROP_URGENT_COUNT", "FINISH: urgent packets; the pages tell as well", BOTH_LANES, None),
    Mutant("DROP_OWN_NONCE", "START: BAD_NONCE; roles are in the key, and a HELLO serves one", HELLOS_3, None),
)
