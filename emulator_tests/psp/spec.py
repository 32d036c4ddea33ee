"""The SEV API as tables, written from its specification and not from the code under test.

For each command the checks in their order, each with the status of its failure, and what success changes. Sources:
AMD 55766, chapters 5 and 6; where that leaves the order open, the order in AMD-ASPFW's sev_mcmd.c (firmware 1.55.25).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Args = Mapping[str, Any]


@dataclass
class Guest:
    """What the specification lets a host know of a guest."""

    policy: int
    state: str
    key: int
    with_session: bool
    asid: int = 0


@dataclass
class Model:
    """A platform of a Milan part with SEV-ES; memory is `memory` bytes from `base`."""

    base: int
    memory: int
    pstate: str = "UNINIT"
    guests: dict[int, Guest] = field(default_factory=dict)
    asids: dict[int, str] = field(default_factory=dict)
    flushed: bool = False
    es: bool = False
    pdh: int = 0
    keys: int = 0

    def guest(self, args: Args) -> Guest:
        return self.guests[args["handle"]]


Check = Callable[[Model, Args], bool]
ALL = ("LUPDATE", "LSECRET", "RUNNING", "SUPDATE", "RUPDATE", "SENT")


def platform(*states: str) -> tuple[str, int, Check]:
    return "platform state", 0x01, lambda model, _args: model.pstate in states


def guest_state(*states: str) -> tuple[str, int, Check]:
    return "guest state", 0x02, lambda model, args: model.guest(args).state in states


def aligned(unit: int, *names: str) -> tuple[str, int, Check]:
    return "alignment", 0x09, lambda _model, args: all(args[name] % unit == 0 for name in names)


def plain(spa: int) -> int:
    return spa & ~(1 << 51)


def memory(*names: str) -> tuple[str, int, Check]:
    def inside(model: Model, args: Args) -> bool:
        starts = [plain(args[name]) for name in names]
        return all(model.base <= spa and spa + args["size"] <= model.base + model.memory for spa in starts)

    return "memory there", 0x09, inside


def length(low: int, high: int, unit: int) -> tuple[str, int, Check]:
    return "length", 0x04, lambda _model, args: low <= args["size"] <= high and args["size"] % unit == 0


WORKING = platform("WORKING")
STARTING = platform("INIT", "WORKING")
HANDLE: tuple[str, int, Check] = ("handle", 0x10, lambda model, args: args["handle"] in model.guests)
ACTIVE: tuple[str, int, Check] = ("active", 0x08, lambda model, args: model.guest(args).asid != 0)
ES_GUEST: tuple[str, int, Check] = ("SEV-ES guest", 0x15, lambda model, args: bool(model.guest(args).policy & 4))
ANY_LENGTH = length(1, 1 << 40, 16)
PACKET_LENGTH = length(48, 0x5000, 16)


def session_checks(*, mandatory: bool) -> list[tuple[str, int, Check]]:
    def given(args: Args) -> bool:
        return mandatory or args["session"] is not None

    return [
        ("session length", 0x04, lambda _m, a: not given(a) or a["session"] not in ("short", None)),
        ("certificate", 0x06, lambda _m, a: not given(a) or a["session"] != "no point"),
        ("session and policy MAC", 0x0B, lambda m, a: not given(a) or a["session"] == ("good", m.pdh)),
        ("API version", 0x07, lambda _m, a: not given(a) or (a["policy"] >> 16 & 0xFF, a["policy"] >> 24) <= (1, 55)),
        ("reserved bits", 0x07, lambda _m, a: not given(a) or not a["policy"] & 0xFFC0),
        ("shared handle", 0x10, lambda m, a: a["shared"] == 0 or a["shared"] in m.guests),
        ("key sharing", 0x07, lambda m, a: a["shared"] == 0
            or (m.guests[a["shared"]].policy == a["policy"] and not a["policy"] & 2)),
        ("SEV-ES platform", 0x15, lambda m, a: not a["policy"] & 4 or m.es),
    ]  # fmt: skip


def begin(state: str) -> Callable[[Model, Args], None]:
    def effect(model: Model, args: Args) -> None:
        model.keys += 1
        key = model.guests[args["shared"]].key if args["shared"] else model.keys
        handle = next(n for n in range(1, 1025) if n not in model.guests)
        model.guests[handle] = Guest(args["policy"], state, key, args["session"] is not None)
        model.pstate = "WORKING"

    return effect


def becomes(state: str) -> Callable[[Model, Args], None]:
    def effect(model: Model, args: Args) -> None:
        guest = model.guest(args)
        guest.state = state
        guest.with_session = state == "SUPDATE" or (guest.with_session and state == "LSECRET")
        if state == "RUNNING" and guest.asid:
            model.asids[guest.asid] = "in use"

    return effect


def activate(model: Model, args: Args) -> None:
    guest = model.guest(args)
    guest.asid = args["asid"]
    model.asids[guest.asid] = "in use" if guest.state in ("RUNNING", "SUPDATE") else "pending"


def deactivate(model: Model, args: Args) -> None:
    guest = model.guest(args)
    was = model.asids[guest.asid]
    model.asids[guest.asid] = "dirty" if was == "in use" else "clean"
    model.flushed = model.flushed and was != "in use"
    guest.asid = 0


def decommission(model: Model, args: Args) -> None:
    del model.guests[args["handle"]]
    model.pstate = "WORKING" if model.guests else "INIT"


def init(model: Model, args: Args) -> None:
    model.pstate, model.es, model.flushed = "INIT", args["region"] != 0, False
    model.asids = dict.fromkeys(range(1, 510), "dirty")


def shutdown(model: Model, _args: Args) -> None:
    model.pstate, model.es = "UNINIT", False
    model.guests.clear()


def df_flush(model: Model, _args: Args) -> None:
    model.asids = {asid: "clean" if state == "dirty" else state for asid, state in model.asids.items()}


def pdh_gen(model: Model, _args: Args) -> None:
    model.pdh += 1


def nothing(_model: Model, _args: Args) -> None:
    pass


def same_place(args: Args) -> bool:
    return plain(args["source"]) == plain(args["destination"])


def same_window(model: Model, args: Args) -> bool:
    del model
    last = args["size"] - 1
    return same_place(args) or all(args[name] >> 26 == args[name] + last >> 26 for name in ("source", "destination"))


def copied_memory(model: Model, args: Args) -> bool:
    return same_place(args) or memory("source", "destination")[2](model, args)


SECRET_LENGTH: Check = lambda _m, a: a["header"] == 52 and 0 < a["size"] <= 0x5000 and a["size"] % 16 == 0 and a["fits"]  # noqa: E731
RECEIVE_LENGTH: Check = lambda _m, a: (  # noqa: E731
    a["header"] >= 52 and 48 <= a["size"] <= 0x5000 and a["size"] % 16 == 0 and a["fits"]
)
GOOD_MAC: tuple[str, int, Check] = ("MAC", 0x0B, lambda _m, a: a["mac"])

COMMANDS: Mapping[str, tuple[list[tuple[str, int, Check]], Callable[[Model, Args], None]]] = {
    "INIT": ([platform("UNINIT"), aligned(1 << 20, "region")], init),
    "SHUTDOWN": ([], shutdown),
    "DF_FLUSH": ([("WBINVD", 0x0E, lambda model, _args: model.flushed)], df_flush),
    "PDH_CERT_EXPORT": ([STARTING], nothing),
    "PDH_GEN": ([STARTING], pdh_gen),
    "LAUNCH_START": ([STARTING, *session_checks(mandatory=False)], begin("LUPDATE")),
    "RECEIVE_START": ([STARTING, *session_checks(mandatory=True)], begin("RUPDATE")),
    "ACTIVATE": ([
        WORKING, HANDLE,
        ("ASID", 0x0D, lambda _m, a: 1 <= a["asid"] <= 509),
        ("ASID free", 0x0C, lambda m, a: m.asids[a["asid"]] not in ("in use", "pending")),
        ("not active", 0x12, lambda m, a: m.guest(a).asid == 0),
        guest_state("LUPDATE", "LSECRET", "RUNNING", "SUPDATE", "RUPDATE"),
        ("ASID clean", 0x0F, lambda m, a: m.asids[a["asid"]] != "dirty"),
        ("kind of ASID", 0x0D, lambda m, a: bool(m.guest(a).policy & 4) == (a["asid"] < 100)),
    ], activate),
    "DEACTIVATE": ([WORKING, HANDLE, ACTIVE], deactivate),
    "DECOMMISSION": ([WORKING, HANDLE, ("inactive", 0x12, lambda m, a: m.guest(a).asid == 0)], decommission),
    "LAUNCH_UPDATE_DATA": (
        [WORKING, HANDLE, guest_state("LUPDATE"), ACTIVE, aligned(16, "spa"), ANY_LENGTH, memory("spa")], nothing,
    ),
    "LAUNCH_UPDATE_VMSA": ([
        ("VMSA length", 0x04, lambda _m, a: a["size"] == 4096),
        WORKING, HANDLE, guest_state("LUPDATE"), ES_GUEST, ACTIVE, aligned(16, "spa"), memory("spa"),
    ], nothing),
    "LAUNCH_MEASURE": (
        [WORKING, HANDLE, guest_state("LUPDATE"), ("buffer", 0x04, lambda _m, a: a["size"] >= 48)], becomes("LSECRET"),
    ),
    "LAUNCH_SECRET": ([
        WORKING, HANDLE, aligned(16, "spa"), ("lengths", 0x04, SECRET_LENGTH), guest_state("LSECRET"), ACTIVE,
        memory("spa"), GOOD_MAC,
    ], nothing),
    "LAUNCH_FINISH": ([WORKING, HANDLE, guest_state("LSECRET")], becomes("RUNNING")),
    "ATTESTATION": ([
        WORKING, HANDLE, guest_state("LSECRET", "RUNNING", "SUPDATE", "SENT"),
        ("buffer", 0x04, lambda _m, a: a["size"] >= 0xD0),
    ], nothing),
    "SEND_START": ([
        WORKING, HANDLE, ("session buffer", 0x04, lambda _m, a: a["size"] == 128), guest_state("RUNNING"),
        ("NOSEND", 0x07, lambda m, a: not m.guest(a).policy & 8),
    ], becomes("SUPDATE")),
    "SEND_UPDATE_DATA": ([
        WORKING, ("header", 0x04, lambda _m, a: a["header"] >= 52), HANDLE, guest_state("SUPDATE"), ACTIVE,
        PACKET_LENGTH, ("room", 0x04, lambda _m, a: a["room"] >= a["size"]), aligned(16, "spa"), memory("spa"),
    ], nothing),
    "SEND_UPDATE_VMSA": ([
        WORKING, ("header", 0x04, lambda _m, a: a["header"] >= 52), HANDLE, guest_state("SUPDATE"), ES_GUEST, ACTIVE,
        PACKET_LENGTH, ("room", 0x04, lambda _m, a: a["room"] >= a["size"]), aligned(16, "spa"), memory("spa"),
        ("a VMSA of the guest's", 0x16, lambda _m, _a: False),
    ], nothing),
    "SEND_FINISH": ([WORKING, HANDLE, guest_state("SUPDATE")], becomes("SENT")),
    "SEND_CANCEL": ([WORKING, HANDLE, guest_state("SUPDATE")], becomes("RUNNING")),
    "RECEIVE_UPDATE_DATA": ([
        WORKING, HANDLE, guest_state("RUPDATE"), ACTIVE, ("lengths", 0x04, RECEIVE_LENGTH), aligned(16, "spa"),
        memory("spa"), GOOD_MAC,
    ], nothing),
    "RECEIVE_UPDATE_VMSA": ([
        WORKING, HANDLE, guest_state("RUPDATE"), ES_GUEST, ACTIVE, ("lengths", 0x04, RECEIVE_LENGTH),
        aligned(16, "spa"), memory("spa"), GOOD_MAC, ("length of a VMSA", 0x04, lambda _m, a: a["size"] >= 4096),
    ], nothing),
    "RECEIVE_FINISH": ([WORKING, HANDLE, guest_state("RUPDATE")], becomes("RUNNING")),
    "COPY": ([
        WORKING, HANDLE, ACTIVE, length(1, 1 << 40, 4096), aligned(4096, "source", "destination"),
        ("64 MiB window", 0x16, same_window), ("memory there", 0x09, copied_memory),
    ], nothing),
    "DBG_DECRYPT": ([
        WORKING, aligned(16, "source", "destination"), length(0, 1 << 40, 16), HANDLE,
        ("NODBG", 0x07, lambda m, a: not m.guest(a).policy & 1), ACTIVE, ANY_LENGTH, memory("source", "destination"),
    ], nothing),
    "DBG_ENCRYPT": ([
        WORKING, aligned(16, "source", "destination"), length(0, 1 << 40, 16), HANDLE,
        ("NODBG", 0x07, lambda m, a: not m.guest(a).policy & 1), ACTIVE, ANY_LENGTH, memory("source", "destination"),
    ], nothing),
}  # fmt: skip


def expected(model: Model, command: str, args: Args) -> int:
    """The status that the table gives."""
    checks, _ = COMMANDS[command]
    return next((status for _, status, holds in checks if not holds(model, args)), 0)
