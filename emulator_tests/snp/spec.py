"""SNP's commands as tables: for each the checks in their order, each with its status, and what success changes.

Written from AMD-ASPFW's sev_mcmd.c and sev_rmp.h (firmware 1.55.25) and not from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Args = Mapping[str, Any]
PAGE = 0x1000
LIMIT = 1 << 44


@dataclass(frozen=True)
class Page:
    """One page of 4 KiB."""

    state: str = "HYPERVISOR"
    owner: int = 0
    """ASID; of METADATA the context."""
    gpa: int = 0
    vmsa: bool = False
    sealed: int = -1
    """Which swapped page lies there."""


@dataclass(frozen=True)
class Entry:
    """What is known of a swapped page."""

    kind: int
    validated: bool
    gpa: int
    sealed: int
    generation: int
    inside: dict[int, Entry]
    """Of a swapped METADATA page: its entries by their offsets."""
    valid: bool = True


@dataclass
class Guest:
    """What a host knows of a guest."""

    state: str = "INIT"
    asid: int = 0
    policy: int = 0
    imi: bool = False
    agent: int | None = None
    generation: int = 0
    """Every launch has another OEK."""


@dataclass
class Model:
    """A platform: `memory` pages from `base`, the first `count` of which are in the RMP."""

    base: int
    count: int
    memory: int
    pstate: str = "UNINIT"
    pages: dict[int, Page] = field(default_factory=dict)
    guests: dict[int, Guest] = field(default_factory=dict)
    asids: dict[int, str] = field(default_factory=dict)
    entries: dict[int, Entry] = field(default_factory=dict)
    flushed: bool = False
    swaps: int = 0
    launches: int = 0

    def covers(self, spa: int) -> bool:
        return self.base <= spa < self.base + self.count * PAGE

    def page(self, spa: int) -> Page:
        page = self.pages.get(spa // PAGE * PAGE, Page())
        return page if self.covers(spa) else replace(page, state="DEFAULT")

    def guest(self, args: Args) -> Guest:
        return self.guests[args["gctx"]]

    def entries_in(self, page: int) -> dict[int, Entry]:
        return {at - page: known for at, known in self.entries.items() if at // PAGE * PAGE == page}

    def set_entries(self, page: int, inside: Mapping[int, Entry]) -> None:
        self.entries = {at: known for at, known in self.entries.items() if at // PAGE * PAGE != page}
        self.entries |= {page + at: known for at, known in inside.items()}

    def put(self, spa: int, **changes: Any) -> None:
        self.pages[spa] = replace(self.page(spa), **changes)


Check = tuple[str, int, Callable[[Model, Args], bool]]


def bytes_of(args: Args) -> int:
    return 512 * PAGE if args["size"] else PAGE


def aligned(*names: str) -> Check:
    return "low bits of addresses", 0x16, lambda _m, a: not any(a[name] % PAGE for name in names)


def state_of(name: str, status: int, *states: str) -> Check:
    return f"state of {name}", status, lambda m, a: m.page(a[name]).state in states


def guest_in(*states: str) -> Check:
    return "state of the guest", 0x02, lambda m, a: m.guest(a).state in states


def there(*names: str) -> Check:
    def inside(model: Model, args: Args) -> bool:
        return all(model.base <= args[name] <= model.base + (model.memory - 1) * PAGE for name in names)

    return "memory there", 0x09, inside


def owned(name: str) -> Check:
    def holds(model: Model, args: Args) -> bool:
        page, guest = model.page(args[name]), model.guest(args)
        return page.owner == (args["gctx"] if page.state == "METADATA" else guest.asid)

    return f"owner of {name}", 0x1C, holds


PLATFORM: Check = ("platform state", 0x01, lambda m, _a: m.pstate == "INIT")
CONTEXT = state_of("gctx", 0x10, "CONTEXT")
ACTIVE: Check = ("active", 0x08, lambda m, a: m.guest(a).asid != 0)
LAUNCHED = guest_in("LAUNCH", "RUNNING")
SMALL: Check = ("size", 0x19, lambda _m, a: a["size"] == 0)
DEBUG: Check = ("DEBUG", 0x07, lambda m, a: bool(m.guest(a).policy >> 19 & 1))
LEAVING = ("PRE_SWAP", "PRE_GUEST")
OWNED = ("PRE_GUEST", "PRE_SWAP", "GUEST_INVALID", "GUEST_VALID")


def policy(model: Model, args: Args) -> bool:
    bits, agent = args["policy"], args["agent"]
    good = bits >> 17 & 1 and bits >> 16 & 1 and bits >> 21 == 0 and (bits >> 8 & 0xFF, bits & 0xFF) <= (1, 55)
    if agent is None:
        return bool(good)
    bound = model.guests[agent]
    return bool(good and bits >> 18 & 1 and bound.agent is None and (not bits >> 20 & 1 or bound.policy >> 20 & 1))


def mdata_checks() -> list[Check]:
    def needed(check: Callable[[Model, Args], bool]) -> Callable[[Model, Args], bool]:
        return lambda m, a: a["mdata"] is None or check(m, a)

    def apart(_model: Model, args: Args) -> bool:
        at = args["mdata"]
        return not any(args[name] - 64 < at < args[name] + bytes_of(args) for name in ("source", "destination"))

    def page(model: Model, args: Args) -> Page:
        return model.page(args["mdata"] // PAGE * PAGE)

    return [
        ("place of the entry", 0x16, needed(lambda _m, a: a["mdata"] % 64 == 0)),
        ("overlap", 0x16, needed(apart)),
        ("METADATA", 0x1A, needed(lambda m, a: page(m, a).state == "METADATA")),
        ("its owner", 0x1C, needed(lambda m, a: page(m, a).owner == a["gctx"])),
    ]


def where(args: Args) -> int:
    """Key of the entry: its address, or that of the context for the root."""
    return int(args["gctx"] if args["mdata"] is None else args["mdata"])


def leaving(model: Model, args: Args) -> bool:
    states = ("METADATA",) if args["kind"] == 1 else LEAVING
    return (
        args["kind"] in (0, 1, 2)
        and model.page(args["source"]).state in states
        and model.page(args["destination"]).state in ("FIRMWARE", "DEFAULT")
    )


def entry(model: Model, args: Args) -> Entry:
    return model.entries.get(where(args), Entry(0, False, 0, -2, -1, {}, valid=False))


SWAP_IN_LAST: list[Check] = [
    ("entry", 0x1B, lambda m, a: entry(m, a).valid and entry(m, a).kind == a["kind"]),
    SMALL,
    ("in place", 0x16, lambda _m, a: not a["in_place"] or a["kind"] == 0),
    ("same place", 0x09, lambda _m, a: not a["in_place"] or a["source"] == a["destination"]),
    ("state", 0x1A, lambda m, a: m.page(a["destination"]).state == ("FIRMWARE" if a["kind"] == 1 else "PRE_GUEST")),
    ("owner", 0x1C, lambda m, a: a["kind"] == 1 or m.page(a["destination"]).owner == m.guest(a).asid),
    there("source"),
    (
        "tag",
        0x0B,
        lambda m, a: (
            m.page(a["source"]).sealed == entry(m, a).sealed and m.guest(a).generation == entry(m, a).generation
        ),
    ),
]


def init(model: Model, _args: Args) -> None:
    model.pstate, model.flushed = "INIT", False
    model.pages = {spa: Page(sealed=page.sealed) for spa, page in model.pages.items()}
    model.asids = dict.fromkeys(range(1, 510), "dirty")


def shutdown(model: Model, _args: Args) -> None:
    model.pstate = "UNINIT"
    model.guests.clear()


def df_flush(model: Model, _args: Args) -> None:
    model.asids = {asid: "clean" if state == "dirty" else state for asid, state in model.asids.items()}


def create(model: Model, args: Args) -> None:
    model.guests[args["gctx"]] = Guest()
    model.entries.pop(args["gctx"], None)
    model.put(args["gctx"], state="CONTEXT", sealed=-1)


def activate(model: Model, args: Args) -> None:
    guest = model.guest(args)
    guest.asid = args["asid"]
    model.asids[guest.asid] = "in use" if guest.state == "RUNNING" else "pending"


def decommission(model: Model, args: Args) -> None:
    guest = model.guests.pop(args["gctx"])
    if guest.asid:
        was = model.asids[guest.asid]
        model.asids[guest.asid] = "dirty" if was == "in use" else "clean"
        model.flushed = model.flushed and was != "in use"
    model.put(args["gctx"], state="FIRMWARE")


def launch_start(model: Model, args: Args) -> None:
    guest = model.guest(args)
    guest.state, guest.policy, guest.imi, guest.agent = "LAUNCH", args["policy"], args["imi_en"], args["agent"]
    model.launches += 1
    guest.generation = model.launches


def launch_update(model: Model, args: Args) -> None:
    model.put(args["page"], state="GUEST_VALID", vmsa=args["type"] == 2, sealed=-1)


def launch_finish(model: Model, args: Args) -> None:
    guest = model.guest(args)
    guest.state = "RUNNING"
    model.asids[guest.asid] = "in use"


def swap_out(model: Model, args: Args) -> None:
    source = model.page(args["source"])
    model.swaps += 1
    gpa, validated = (0, False) if args["kind"] == 1 else (source.gpa, source.state == "PRE_SWAP")
    if args["kind"] == 1:
        model.put(args["source"], state="FIRMWARE", owner=0)
    else:
        model.put(args["source"], state="PRE_GUEST")
    model.put(args["destination"], sealed=model.swaps)
    inside = model.entries_in(args["source"]) if args["kind"] == 1 else {}
    generation = model.guest(args).generation
    model.entries[where(args)] = Entry(args["kind"], validated, gpa, model.swaps, generation, inside)


def swap_in(model: Model, args: Args) -> None:
    known = entry(model, args)
    model.entries[where(args)] = replace(known, valid=False)
    if known.kind == 1:
        model.put(args["destination"], state="METADATA", owner=args["gctx"], sealed=-1)
        model.set_entries(args["destination"], known.inside)
        return
    state = "PRE_SWAP" if known.validated else "PRE_GUEST"
    model.put(args["destination"], state=state, gpa=known.gpa, vmsa=known.kind == 2, sealed=-1)


def page_move(model: Model, args: Args) -> None:
    old = model.page(args["source"])
    if old.state == "METADATA":
        model.set_entries(args["destination"], model.entries_in(args["source"]))
        model.pages[args["destination"]] = replace(old)
        model.put(args["source"], state="FIRMWARE", owner=0)
        return
    state = "GUEST_VALID" if old.state == "PRE_SWAP" else "GUEST_INVALID"
    model.pages[args["destination"]] = replace(old, state=state, sealed=-1)
    model.put(args["source"], state="GUEST_INVALID")


def movable(model: Model, args: Args) -> bool:
    states = model.page(args["source"]).state, model.page(args["destination"]).state
    return states == ("METADATA", "FIRMWARE") or (states[0] in LEAVING and states[1] == "PRE_GUEST")


def move_owner(model: Model, args: Args) -> bool:
    names = ("source",) if model.page(args["source"]).state == "METADATA" else ("source", "destination")
    return all(owned(name)[2](model, args) for name in names)


def md_init(model: Model, args: Args) -> None:
    model.put(args["page"], state="METADATA", owner=args["gctx"], sealed=-1)
    model.set_entries(args["page"], {})


def reclaim(model: Model, args: Args) -> None:
    after = {"METADATA": "RECLAIM", "FIRMWARE": "RECLAIM", "PRE_GUEST": "GUEST_INVALID", "PRE_SWAP": "GUEST_VALID"}
    page = model.page(args["page"])
    owner = 0 if page.state == "METADATA" else page.owner
    model.put(args["page"], state=after.get(page.state, page.state), owner=owner)


def written(name: str) -> Callable[[Model, Args], None]:
    return lambda model, args: model.put(args[name], sealed=-1)


def nothing(_model: Model, _args: Args) -> None:
    pass


COMMANDS: Mapping[str, tuple[list[Check], Callable[[Model, Args], None]]] = {
    "INIT": ([("platform state", 0x01, lambda m, _a: m.pstate == "UNINIT")], init),
    "SHUTDOWN": ([
        ("all ASIDs clean", 0x0F, lambda m, _a: m.pstate == "UNINIT" or set(m.asids.values()) == {"clean"}),
    ], shutdown),
    "DF_FLUSH": ([("WBINVD", 0x0E, lambda m, _a: m.flushed)], df_flush),
    "GCTX_CREATE": ([aligned("gctx"), PLATFORM, state_of("gctx", 0x1A, "FIRMWARE")], create),
    "GUEST_STATUS": ([aligned("gctx"), PLATFORM, CONTEXT], nothing),
    "DECOMMISSION": ([aligned("gctx"), PLATFORM, CONTEXT], decommission),
    "ACTIVATE": ([
        aligned("gctx"), PLATFORM, CONTEXT, LAUNCHED,
        ("counter", 0x0D, lambda _m, a: a["asid"] < 2048),
        ("no pages", 0x03, lambda m, a: a["asid"] == 0
            or not any(page.owner == a["asid"] for page in m.pages.values() if page.state in OWNED)),
        ("ASID", 0x0D, lambda _m, a: 1 <= a["asid"] <= 509),
        ("ASID free", 0x0C, lambda m, a: m.asids[a["asid"]] not in ("in use", "pending")),
        ("not active", 0x12, lambda m, a: m.guest(a).asid == 0),
        ("ASID clean", 0x0F, lambda m, a: m.asids[a["asid"]] != "dirty"),
        ("below MIN_SEV_ASID", 0x0D, lambda _m, a: a["asid"] < 100),
    ], activate),
    "LAUNCH_START": ([
        aligned("gctx", "agent_or_0"), PLATFORM, CONTEXT, guest_in("INIT"),
        ("agent", 0x10, lambda m, a: a["agent"] is None or m.page(a["agent"]).state == "CONTEXT"),
        ("policy", 0x07, policy),
    ], launch_start),
    "LAUNCH_UPDATE": ([
        aligned("gctx", "page"), PLATFORM, CONTEXT, state_of("page", 0x1A, "PRE_GUEST"), SMALL,
        ("type", 0x16, lambda _m, a: 1 <= a["type"] <= 6),
        guest_in("LAUNCH"), ACTIVE, owned("page"),
        ("incoming image", 0x16, lambda m, a: a["imi"] or not m.guest(a).imi),
    ], launch_update),
    "LAUNCH_FINISH": ([
        aligned("gctx"), PLATFORM, CONTEXT, guest_in("LAUNCH"),
        ("no incoming image", 0x02, lambda m, a: not m.guest(a).imi), ACTIVE,
    ], launch_finish),
    "GUEST_REQUEST": ([
        aligned("gctx"), PLATFORM, CONTEXT, state_of("destination", 0x1A, "FIRMWARE"), guest_in("RUNNING"),
        there("source"), ("form", 0x16, lambda _m, _a: False),
    ], nothing),
    "DBG_DECRYPT": ([
        aligned("gctx", "source", "destination"), PLATFORM, CONTEXT, state_of("source", 0x1A, *OWNED),
        state_of("destination", 0x1A, "FIRMWARE"), owned("source"), DEBUG,
    ], written("destination")),
    "DBG_ENCRYPT": ([
        PLATFORM, aligned("gctx", "source", "destination"), CONTEXT, state_of("destination", 0x1A, *LEAVING),
        owned("destination"), DEBUG, there("source"),
    ], written("destination")),
    "MD_INIT": ([aligned("gctx", "page"), PLATFORM, CONTEXT, state_of("page", 0x1A, "FIRMWARE"), LAUNCHED], md_init),
    "SWAP_OUT": ([
        aligned("gctx", "source", "destination"), PLATFORM, CONTEXT, *mdata_checks(), SMALL, LAUNCHED, ACTIVE,
        ("states", 0x1A, leaving), owned("source"), there("destination"),
    ], swap_out),
    "SWAP_IN": ([
        aligned("gctx", "source", "destination"), PLATFORM, CONTEXT, *mdata_checks(), LAUNCHED, ACTIVE, *SWAP_IN_LAST,
    ], swap_in),
    "PAGE_MOVE": ([
        aligned("gctx", "source", "destination"), PLATFORM, CONTEXT, SMALL, LAUNCHED, ACTIVE,
        ("states", 0x1A, movable), ("owners", 0x1C, move_owner),
    ], page_move),
    "PAGE_RECLAIM": ([
        aligned("page"), PLATFORM,
        ("range", 0x09, lambda m, a: m.base <= a["page"] <= m.base + m.memory * PAGE - bytes_of(a)), SMALL,
        ("state", 0x1A, lambda m, a: m.page(a["page"]).state != "CONTEXT"),
    ], reclaim),
    "PAGE_UNSMASH": ([
        ("2 MiB", 0x16, lambda _m, a: a["page"] % 0x20_0000 == 0), PLATFORM,
        ("in the RMP", 0x09, lambda m, a: m.covers(a["page"])),
        ("512 pages of one", 0x1A, lambda _m, _a: False),
    ], nothing),
}  # fmt: skip


def expected(model: Model, command: str, args: Args) -> int:
    """The status that the table gives."""
    checks, _ = COMMANDS[command]
    return next((status for _, status, holds in checks if not holds(model, args)), 0)
