"""Every command with every field out of range, in every state, against a table; and any order of commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator_tests.psp.rig import status
from emulator_tests.snp.spec import COMMANDS, PAGE, Model, Page, expected
from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.snp.command import SnpState
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.requests import GuestRequest
from mh_emulator.psp.snp.swap import PageMove, Swap
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.instructions import NewState, rmpupdate
from mh_emulator.rmp.table import Rmp

BASE = 0x12_3400_0000
COVERED, MEMORY = 512, 514
GPA = 0x7000_0000
ASID = 5
Fields = dict[str, Any]


def spa(number: int) -> int:
    return BASE + number * PAGE


# Pages by what a host uses them for at first.
GCTX, AGENT, MD, DATA, VMSA, FRESH, OUT, FREE = map(spa, range(8))
BEYOND = spa(COVERED)

GOOD: Fields = {
    "gctx": GCTX, "agent": None, "policy": 0x30000, "imi_en": False, "asid": ASID, "page": FRESH, "type": 1,
    "imi": False, "size": 0, "source": DATA, "destination": OUT, "mdata": MD, "kind": 0, "in_place": False,
}  # fmt: skip
PAGES = [GCTX, AGENT, MD, DATA, FRESH, OUT, FREE, BEYOND, GCTX + 8, spa(MEMORY), BASE - PAGE, 1 << 46]
FLAWS: Mapping[str, list[Any]] = {
    "gctx": PAGES, "page": PAGES, "source": PAGES, "destination": PAGES,
    "agent": [AGENT, GCTX, FREE, GCTX + 1],
    "policy": [
        0, 0x10000, 0x20000, 0xB0000, 0x70000, 0x170000, 0x230000, 0x30137, 0x30138, 0x30200, 1 << 63 | 0x30000,
    ],
    "imi_en": [True], "imi": [True], "in_place": [True], "size": [1],
    "asid": [0, ASID + 1, 99, 100, 509, 510, 1023, 2047, 2048, (1 << 32) - 1],
    "type": [0, 2, 3, 4, 5, 7],
    "kind": [1, 2, 3],
    "mdata": [None, MD + 64, MD + 8, GCTX, DATA, OUT, BEYOND],
}  # fmt: skip
"""Values that at least one command refuses in at least one state."""

_SWAP = ("gctx", "source", "destination", "mdata", "kind", "size")
TAKES: Mapping[str, tuple[str, ...]] = {
    "INIT": (), "SHUTDOWN": (), "DF_FLUSH": (),
    "GCTX_CREATE": ("gctx",), "GUEST_STATUS": ("gctx",), "DECOMMISSION": ("gctx",),
    "ACTIVATE": ("gctx", "asid"),
    "LAUNCH_START": ("gctx", "agent", "policy", "imi_en"),
    "LAUNCH_UPDATE": ("gctx", "page", "type", "imi", "size"),
    "LAUNCH_FINISH": ("gctx",),
    "GUEST_REQUEST": ("gctx", "source", "destination"),
    "DBG_DECRYPT": ("gctx", "source", "destination"),
    "DBG_ENCRYPT": ("gctx", "source", "destination"),
    "MD_INIT": ("gctx", "page"),
    "SWAP_OUT": _SWAP, "SWAP_IN": (*_SWAP, "in_place"),
    "PAGE_MOVE": ("gctx", "source", "destination", "size"),
    "PAGE_RECLAIM": ("page", "size"), "PAGE_UNSMASH": ("page",),
}  # fmt: skip
"""The fields of each command."""


def swap(fields: Fields) -> Swap:
    f = fields
    return Swap(
        f["gctx"], f["source"], f["destination"], f["mdata"], f["kind"], PageSize(f["size"]), in_place=f["in_place"]
    )  # fmt: skip


CALLS: Mapping[str, Callable[[SnpFirmware, Fields], object]] = {
    "INIT": lambda fw, _f: fw.init(),
    "SHUTDOWN": lambda fw, _f: fw.shutdown(),
    "DF_FLUSH": lambda fw, _f: fw.df_flush(),
    "GCTX_CREATE": lambda fw, f: fw.gctx_create(f["gctx"]),
    "GUEST_STATUS": lambda fw, f: fw.guest_status(f["gctx"]),
    "DECOMMISSION": lambda fw, f: fw.decommission(f["gctx"]),
    "ACTIVATE": lambda fw, f: fw.activate(f["gctx"], f["asid"]),
    "LAUNCH_START": lambda fw, f: fw.launch_start(LaunchStart(f["gctx"], f["policy"], f["agent"], f["imi_en"])),
    "LAUNCH_UPDATE": lambda fw, f: fw.launch_update(
        LaunchUpdate(f["gctx"], f["page"], f["type"], PageSize(f["size"]), f["imi"])
    ),
    "LAUNCH_FINISH": lambda fw, f: fw.launch_finish(LaunchFinish(f["gctx"])),
    "GUEST_REQUEST": lambda fw, f: fw.guest_request(GuestRequest(f["gctx"], f["source"], f["destination"])),
    "DBG_DECRYPT": lambda fw, f: fw.dbg_decrypt(f["gctx"], f["source"], f["destination"]),
    "DBG_ENCRYPT": lambda fw, f: fw.dbg_encrypt(f["gctx"], f["source"], f["destination"]),
    "MD_INIT": lambda fw, f: fw.md_init(f["gctx"], f["page"]),
    "SWAP_OUT": lambda fw, f: fw.swap_out(swap(f)),
    "SWAP_IN": lambda fw, f: fw.swap_in(swap(f)),
    "PAGE_MOVE": lambda fw, f: fw.page_move(PageMove(f["gctx"], f["source"], f["destination"], PageSize(f["size"]))),
    "PAGE_RECLAIM": lambda fw, f: fw.page_reclaim(f["page"], PageSize(f["size"])),
    "PAGE_UNSMASH": lambda fw, f: fw.page_unsmash(f["page"]),
}


class Host:
    """Turns rows of the table into calls."""

    def __init__(self) -> None:
        self.dram = Dram(MEMORY * PAGE, BASE, PARTS["milan"], 3)
        self.rmp = Rmp(BASE, COVERED * PAGE)
        self.fw = SnpFirmware(self.dram, self.rmp, 3)
        self.model = Model(BASE, COVERED, MEMORY)

    def check(self, command: str, fields: Fields) -> int:
        """Give the command; it must return what the table says, and change something only if that is success."""
        known = fields | {"agent_or_0": fields["agent"] or 0}
        wanted = expected(self.model, command, known)
        before = self.everything() if wanted else None
        found = status(lambda: CALLS[command](self.fw, fields))
        assert found == wanted, (command, fields, found)
        if wanted:
            assert self.everything() == before, (command, fields)
        else:
            COMMANDS[command][1](self.model, known)
        return wanted

    def update(self, page: int, to: str, asid: int = ASID, gpa: int = GPA) -> None:
        """RMPUPDATE, and what it does to the model."""
        owned = NewState(True, gpa, immutable=to in ("PRE_GUEST", "PRE_SWAP"), asid=asid)
        new = {"HYPERVISOR": NewState(False), "FIRMWARE": NewState(True, immutable=True)}.get(to, owned)
        code = rmpupdate(self.rmp, page, new)
        old = self.model.page(page)
        if old.state in ("FIRMWARE", "CONTEXT", "METADATA", "PRE_GUEST", "PRE_SWAP"):
            assert code == 2
            return
        assert code == 0
        if to in ("HYPERVISOR", "FIRMWARE"):
            self.model.pages[page] = Page(to, sealed=old.sealed)
            return
        stays = old.state in ("GUEST_VALID", "GUEST_INVALID") and (old.owner, old.gpa) == (asid, gpa)
        states = ("PRE_SWAP", "GUEST_VALID") if stays and old.state == "GUEST_VALID" else ("PRE_GUEST", "GUEST_INVALID")
        self.model.put(page, state=states[not new.immutable], owner=asid, gpa=gpa, vmsa=stays and old.vmsa)

    def wbinvd(self) -> None:
        self.fw.wbinvd()
        self.model.flushed = True

    def everything(self) -> tuple[object, ...]:
        """All that anybody can see."""
        raw = tuple(self.dram.peek_raw(spa(number)) for number in (*range(8), COVERED, COVERED + 1))
        guests = self.fw._sp.guests
        kept = [(at, guest.export(), guest.asid, guest.agent, guest.imi_en) for at, guest in sorted(guests.items())]
        return raw, kept, self.fw.platform_status(), dict(self.rmp._entries), dict(self.fw._sp.asids._states)

    def agrees(self) -> None:
        """What the firmware knows of guests and pages is what the model knows."""
        model = self.model
        assert self.fw.state is SnpState[model.pstate]
        guests = {at: (guest.state.name, guest.asid, guest.policy) for at, guest in self.fw._sp.guests.items()}
        assert guests == {at: (guest.state, guest.asid, guest.policy) for at, guest in model.guests.items()}
        for number in range(8):
            entry, page = self.rmp.entry(spa(number)), model.page(spa(number))
            assert entry.state.name == page.state
            if page.state.startswith(("PRE_", "GUEST_")):
                assert (entry.asid, entry.gpa, entry.vmsa) == (page.owner, page.gpa, page.vmsa)
        assert all(self.fw.is_runnable(asid) is (state == "in use") for asid, state in model.asids.items())


def started(commands: list[tuple[str, Fields]]) -> Host:
    """After INIT, with the pages as named."""
    host = Host()
    host.check("INIT", GOOD)
    host.wbinvd()
    host.check("DF_FLUSH", GOOD)
    for page in (GCTX, AGENT, OUT):
        host.update(page, "FIRMWARE")
    for command, fields in commands:
        if command == "RMPUPDATE":
            host.update(**fields)
        else:
            assert host.check(command, GOOD | fields) == 0, command
    return host


def rmpupdates(*pages: int, to: str = "PRE_GUEST") -> list[tuple[str, Fields]]:
    return [("RMPUPDATE", {"page": page, "to": to, "gpa": GPA + page - BASE}) for page in pages]


def launch(**fields: Any) -> list[tuple[str, Fields]]:
    """A guest with a Guest-Valid page, a VMSA, a METADATA page, and a Pre-Guest page."""
    return [
        ("GCTX_CREATE", {}), ("LAUNCH_START", fields), ("ACTIVATE", {}), ("RMPUPDATE", {"page": MD, "to": "FIRMWARE"}),
        ("MD_INIT", {"page": MD}), *rmpupdates(DATA, VMSA, FRESH), ("LAUNCH_UPDATE", {"page": DATA, "imi": True}),
        ("LAUNCH_UPDATE", {"page": VMSA, "type": 2, "imi": True}),
    ]  # fmt: skip


RUNNING = [*launch(policy=0xB0000), ("LAUNCH_FINISH", {})]
SWAPPED = [*RUNNING, *rmpupdates(DATA, to="PRE_SWAP"), ("SWAP_OUT", {})]
STARTS: Mapping[str, list[tuple[str, Fields]]] = {
    "nothing": [],
    "INIT": [("GCTX_CREATE", {}), *rmpupdates(DATA, FRESH)],
    "LAUNCH, inactive": [("GCTX_CREATE", {}), ("LAUNCH_START", {}), *rmpupdates(DATA, FRESH)],
    "INIT beside an agent": [
        ("GCTX_CREATE", {"gctx": AGENT}), ("LAUNCH_START", {"gctx": AGENT}), ("GCTX_CREATE", {}),
    ],
    "INIT beside an agent for one socket": [
        ("GCTX_CREATE", {"gctx": AGENT}), ("LAUNCH_START", {"gctx": AGENT, "policy": 0x130000}), ("GCTX_CREATE", {}),
    ],
    "LAUNCH": [*launch(), ("RMPUPDATE", {"page": FREE, "to": "PRE_GUEST", "asid": ASID + 1})],
    "LAUNCH, incoming image": launch(imi_en=True),
    "LAUNCH with an agent": [
        ("GCTX_CREATE", {"gctx": AGENT}), ("LAUNCH_START", {"gctx": AGENT}), *launch(policy=0x70000, agent=AGENT),
    ],
    "RUNNING": [*launch(), ("LAUNCH_FINISH", {})],
    "RUNNING, DEBUG": RUNNING,
    "leaving": [*RUNNING, *rmpupdates(DATA, to="PRE_SWAP")],
    "swapped": [*SWAPPED, *rmpupdates(FREE)],
    "swapped to the root": [*RUNNING, *rmpupdates(DATA, to="PRE_SWAP"), ("SWAP_OUT", {"mdata": None})],
    "entries swapped": [*SWAPPED, ("SWAP_OUT", {"source": MD, "destination": BEYOND, "kind": 1, "mdata": None})],
    "decommissioned": [*RUNNING, ("DECOMMISSION", {})],
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_every_command_with_every_field_out_of_range(start: str) -> None:
    """One field at a time, from fields that fit some command."""
    host = started(STARTS[start])
    host.agrees()
    bases: list[Fields] = [{}, {"source": OUT, "destination": FRESH}, {"destination": BEYOND, "source": MD, "kind": 1}]
    bases += [{"source": BEYOND, "destination": OUT, "kind": 1, "mdata": None}]
    bound: list[Fields] = [{}, {"agent": AGENT, "policy": 0x70000}]
    for command, names in TAKES.items():
        for base in bases if "source" in names else bound if "agent" in names else bases[:1]:
            for flaw in ({}, *({name: value} for name in names for value in FLAWS[name])):
                if host.check(command, GOOD | base | flaw) == 0:
                    host.agrees()
                    host = started(STARTS[start])


class HostileHost(RuleBasedStateMachine):
    """Any order of commands and RMPUPDATEs, mostly with arguments that fit."""

    def __init__(self) -> None:
        super().__init__()
        self.host = started([])

    @rule()
    def wbinvd(self) -> None:
        self.host.wbinvd()

    @rule(
        page=st.sampled_from([MD, DATA, VMSA, FRESH, OUT, FREE]),
        to=st.sampled_from(["HYPERVISOR", "FIRMWARE", "PRE_GUEST", "PRE_GUEST", "GUEST_INVALID"]),
        asid=st.sampled_from([ASID, ASID, ASID + 1]),
    )
    def rmpupdate(self, page: int, to: str, asid: int) -> None:
        self.host.update(page, to, asid, GPA + page - BASE)

    @rule(data=st.data(), gctx=st.sampled_from([GCTX, GCTX, AGENT]))
    def forward(self, data: st.DataObject, gctx: int) -> None:
        """The next step of a launch, so that guests come to run."""
        model = self.host.model
        guest = model.guests.get(gctx)
        if guest is None:
            self.host.check("GCTX_CREATE", GOOD | {"gctx": gctx})
        elif guest.state == "INIT":
            self.host.check(
                "LAUNCH_START", GOOD | {"gctx": gctx, "policy": data.draw(st.sampled_from([0x30000, 0xB0000]))}
            )
        elif not guest.asid:
            self.host.check("ACTIVATE", GOOD | {"gctx": gctx, "asid": ASID + (gctx == AGENT)})
        else:
            self.host.check("LAUNCH_FINISH", GOOD | {"gctx": gctx})

    @rule(command=st.sampled_from([name for name in COMMANDS if name != "SHUTDOWN"] * 2 + ["SHUTDOWN"]), data=st.data())
    def give(self, command: str, data: st.DataObject) -> None:
        """A command with pages by their states where those fit, and one field out of range."""
        pages = st.sampled_from([GCTX, AGENT, MD, DATA, VMSA, FRESH, OUT, FREE, BEYOND])
        fields = GOOD | {name: data.draw(pages) for name in ("page", "source", "destination") if name in TAKES[command]}
        if TAKES[command]:
            name = data.draw(st.sampled_from(TAKES[command]))
            fields[name] = data.draw(st.sampled_from([fields[name], *FLAWS[name]]))
        self.host.check(command, fields)

    @invariant()
    def agrees(self) -> None:
        self.host.agrees()


TestHostileHost = HostileHost.TestCase
TestHostileHost.settings = settings(max_examples=25, stateful_step_count=40, deadline=None, derandomize=True)


def test_table_and_fields_name_the_same_commands() -> None:
    assert TAKES.keys() == COMMANDS.keys() == CALLS.keys()


def test_nothing_but_init_works_before_init() -> None:
    host = Host()
    told = {command: host.check(command, GOOD | {"page": BASE}) for command in COMMANDS if command != "INIT"}
    assert {command for command, code in told.items() if code != 1} == {"SHUTDOWN", "DF_FLUSH"}
