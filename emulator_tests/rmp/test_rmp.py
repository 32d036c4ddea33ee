"""The RMP against tables that were written from its sources and not from the code under test."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mh_emulator.rmp.access import Access, Guest, Kind, guest_access, host_reads_ciphertext, host_write, vmrun
from mh_emulator.rmp.entry import ALL_PERMS, METADATA_MARK, NO_PERMS, PageSize, PageState, Perm, RmpEntry
from mh_emulator.rmp.fault import Fault, Trap
from mh_emulator.rmp.instructions import (
    Code,
    GuestPage,
    NewState,
    Result,
    psmash,
    pvalidate,
    rmpadjust,
    rmpread,
    rmpupdate,
)
from mh_emulator.rmp.table import Rmp

BASE = 0x10_0000_0000
PAGE = 0x1000
LARGE = 0x20_0000
ASID, GPA = 7, 0x4000_0000


def rmp_with(entry: RmpEntry) -> Rmp:
    rmp = Rmp(BASE, 2 * LARGE)
    rmp.replace(BASE, entry)
    return rmp


def private(**fields: object) -> RmpEntry:
    return RmpEntry(**({"assigned": True, "validated": True, "asid": ASID, "gpa": GPA} | fields))  # type: ignore[arg-type]


# assigned, validated, ASID > 0, immutable, GPA, VMSA: AMD-ASPFW, sev_rmp.h.
STATES = {
    (0, 0, 0, 0): {"HYPERVISOR"},
    (0, 0, 0, 1): {"HV_FIXED"},
    (1, 0, 0, 0): {"RECLAIM"},
    (1, 0, 0, 1): {"FIRMWARE", "CONTEXT", "METADATA", "INVALID"},
    (1, 0, 1, 1): {"PRE_GUEST"},
    (1, 1, 1, 1): {"PRE_SWAP"},
    (1, 0, 1, 0): {"GUEST_INVALID"},
    (1, 1, 1, 0): {"GUEST_VALID"},
}


@pytest.mark.parametrize("bits", list(product((0, 1), repeat=4)), ids=str)
def test_states_by_name(bits: tuple[int, ...]) -> None:
    assigned, validated, owned, immutable = bits
    gpas = {0: "FIRMWARE", METADATA_MARK | BASE: "METADATA", METADATA_MARK: "INVALID", BASE: "INVALID"}
    for (gpa, named), vmsa in product(gpas.items(), (False, True)):
        entry = RmpEntry(
            bool(assigned), bool(validated), bool(immutable), vmsa=vmsa, asid=ASID * owned, gpa=gpa
        )  # fmt: skip
        wanted = STATES.get((assigned, validated, owned, immutable), {"INVALID"})
        if len(wanted) > 1:
            wanted = {"CONTEXT" if vmsa and not gpa else named}
        assert {entry.state.name} == wanted


def test_beyond_the_table_a_page_has_no_entry() -> None:
    rmp = Rmp(BASE, LARGE)
    assert [rmp.state(spa) for spa in (BASE - PAGE, BASE, BASE + LARGE)] == [
        PageState.DEFAULT, PageState.HYPERVISOR, PageState.DEFAULT,
    ]  # fmt: skip
    assert rmpread(rmp, BASE + LARGE) is None
    with pytest.raises(ValueError, match="outside of the RMP"):
        rmp.replace(BASE + LARGE, RmpEntry())
    with pytest.raises(ValueError, match="not made of 2 MiB"):
        Rmp(BASE + PAGE, LARGE)


RMPUPDATES = {
    "to a guest": (RmpEntry(), NewState(True, GPA, asid=ASID), Code.SUCCESS, "GUEST_INVALID"),
    "to be launched": (RmpEntry(), NewState(True, GPA, immutable=True, asid=ASID), Code.SUCCESS, "PRE_GUEST"),
    "to the firmware": (RmpEntry(), NewState(True, immutable=True), Code.SUCCESS, "FIRMWARE"),
    "back": (private(), NewState(False), Code.SUCCESS, "HYPERVISOR"),
    "to another GPA": (private(), NewState(True, GPA + PAGE, asid=ASID), Code.SUCCESS, "GUEST_INVALID"),
    "to another ASID": (private(), NewState(True, GPA, asid=ASID + 1), Code.SUCCESS, "GUEST_INVALID"),
    "to be swapped": (private(), NewState(True, GPA, immutable=True, asid=ASID), Code.SUCCESS, "PRE_SWAP"),
    "the same": (private(), NewState(True, GPA, asid=ASID), Code.SUCCESS, "GUEST_VALID"),
    "immutable": (private(immutable=True), NewState(False), Code.FAIL_PERMISSION, "PRE_SWAP"),
    "the firmware's": (RmpEntry(True, immutable=True), NewState(False), Code.FAIL_PERMISSION, "FIRMWARE"),
    "fixed": (RmpEntry(immutable=True), NewState(True, GPA, asid=ASID), Code.FAIL_PERMISSION, "HV_FIXED"),
    "2 MiB": (RmpEntry(), NewState(True, GPA + PAGE, PageSize.LARGE, asid=ASID), Code.FAIL_INPUT, "HYPERVISOR"),
    "ASID of 11 bits": (RmpEntry(), NewState(True, GPA, asid=1024), Code.FAIL_INPUT, "HYPERVISOR"),
    "GPA of 52 bits": (RmpEntry(), NewState(True, 1 << 51, asid=ASID), Code.FAIL_INPUT, "HYPERVISOR"),
    "GPA in a page": (RmpEntry(), NewState(True, GPA + 8, asid=ASID), Code.FAIL_INPUT, "HYPERVISOR"),
    "forged metadata": (
        RmpEntry(), NewState(True, METADATA_MARK | BASE, immutable=True), Code.FAIL_INPUT, "HYPERVISOR",
    ),
    "HV-Fixed by a host": (RmpEntry(), NewState(False, immutable=True), Code.FAIL_INPUT, "HYPERVISOR"),
    "ASID, not assigned": (RmpEntry(), NewState(False, asid=ASID), Code.FAIL_INPUT, "HYPERVISOR"),
}  # fmt: skip


@pytest.mark.parametrize("case", RMPUPDATES)
def test_rmpupdate(case: str) -> None:
    old, new, code, state = RMPUPDATES[case]
    rmp = rmp_with(old)
    assert rmpupdate(rmp, BASE, new) is code
    assert rmp.state(BASE).name == state
    if code:
        assert rmp.entry(BASE) == old
    elif state != "HYPERVISOR":
        assert rmpread(rmp, BASE) == new


def test_a_page_that_changes_hands_loses_rights_and_vmsa() -> None:
    perms = (ALL_PERMS, Perm.READ, Perm.WRITE, ALL_PERMS)
    rmp = rmp_with(private(vmsa=True, perms=perms))
    assert rmpupdate(rmp, BASE, NewState(True, GPA, immutable=True, asid=ASID)) is Code.SUCCESS
    assert (rmp.entry(BASE).vmsa, rmp.entry(BASE).perms) == (True, perms)
    rmp = rmp_with(private(vmsa=True, perms=perms))
    assert rmpupdate(rmp, BASE, NewState(True, GPA + PAGE, asid=ASID)) is Code.SUCCESS
    assert (rmp.entry(BASE).vmsa, rmp.entry(BASE).perms) == (False, (ALL_PERMS, NO_PERMS, NO_PERMS, NO_PERMS))


def test_rmpupdate_of_no_page() -> None:
    rmp = Rmp(BASE, LARGE)
    for spa in (BASE - PAGE, BASE + LARGE, BASE + 8):
        assert rmpupdate(rmp, spa, NewState(True, GPA, asid=ASID)) is Code.FAIL_INPUT


def test_two_mib_and_what_lies_in_it() -> None:
    rmp = Rmp(BASE, 2 * LARGE)
    whole = NewState(True, GPA, PageSize.LARGE, asid=ASID)
    assert rmpupdate(rmp, BASE + PAGE, NewState(True, GPA, asid=ASID)) is Code.SUCCESS
    assert rmpupdate(rmp, BASE, whole) is Code.FAIL_OVERLAP
    assert rmpupdate(rmp, BASE + PAGE, NewState(False)) is Code.SUCCESS
    assert rmpupdate(rmp, BASE, whole) is Code.SUCCESS
    assert rmp.pages_of(ASID) == 512
    assert [rmp.state(BASE + at) for at in (0, PAGE, LARGE)] == [
        PageState.GUEST_INVALID, PageState.RECLAIM, PageState.HYPERVISOR,
    ]  # fmt: skip
    for spa in (BASE, BASE + PAGE):
        assert rmpupdate(rmp, spa, NewState(True, GPA, asid=ASID)) is Code.FAIL_OVERLAP
    page = GuestPage(GPA, BASE, PageSize.LARGE)
    assert pvalidate(rmp, Guest(ASID), page, validated=True) == Result(Code.SUCCESS)
    assert psmash(rmp, BASE + PAGE) is Code.FAIL_INPUT
    assert psmash(rmp, BASE) is Code.SUCCESS
    assert psmash(rmp, BASE) is Code.FAIL_INPUT
    assert rmp.entry(BASE + 511 * PAGE) == private(gpa=GPA + 511 * PAGE)
    assert rmp.pages_of(ASID) == 512
    assert rmpupdate(rmp, BASE, NewState(False, size=PageSize.LARGE)) is Code.FAIL_OVERLAP


def test_psmash_of_what_is_immutable() -> None:
    rmp = rmp_with(private(size=PageSize.LARGE, immutable=True))
    assert psmash(rmp, BASE) is Code.FAIL_PERMISSION


NPF = 0x5_8000_0003
"""Present, write, RMP, final, C-bit."""
SIZEM, BY_VMPL = 1 << 35, 1 << 36

FOREIGN: dict[str, dict[str, object]] = {
    "not assigned": {"assigned": False, "validated": False, "asid": 0},
    "of another guest": {"asid": ASID + 1},
    "for another GPA": {"gpa": GPA + PAGE},
    "immutable": {"immutable": True},
}


@pytest.mark.parametrize("flaw", FOREIGN)
def test_what_is_not_the_guests_exits_to_the_host(flaw: str) -> None:
    entry = private(**FOREIGN[flaw])
    page = GuestPage(GPA, BASE)
    for call in (
        lambda rmp: pvalidate(rmp, Guest(ASID), page, validated=True),
        lambda rmp: rmpadjust(rmp, Guest(ASID), page, 1, Perm.READ),
        lambda rmp: guest_access(rmp, Guest(ASID), Access(Kind.WRITE, GPA, BASE)),
    ):
        rmp = rmp_with(entry)
        assert call(rmp) == Fault(Trap.NESTED_PAGE_FAULT, NPF)
        assert rmp.entry(BASE) == entry


def test_pvalidate() -> None:
    rmp = rmp_with(private(validated=False))
    page = GuestPage(GPA, BASE)
    assert pvalidate(rmp, Guest(ASID, 1), page, validated=True) == Fault(Trap.GENERAL_PROTECTION)
    for validated in (True, False):
        assert pvalidate(rmp, Guest(ASID), page, validated=validated) == Result(Code.SUCCESS)
        assert pvalidate(rmp, Guest(ASID), page, validated=validated) == Result(Code.SUCCESS, carry=True)
        assert rmp.entry(BASE) == private(validated=validated)


@pytest.mark.parametrize(
    ("entry_size", "size", "outcome"),
    [
        (PageSize.SMALL, PageSize.LARGE, Result(Code.FAIL_SIZEMISMATCH)),
        (PageSize.LARGE, PageSize.SMALL, Fault(Trap.NESTED_PAGE_FAULT, NPF | SIZEM)),
        (PageSize.LARGE, PageSize.LARGE, Result(Code.SUCCESS)),
    ],
)
def test_sizes(entry_size: PageSize, size: PageSize, outcome: Result | Fault) -> None:
    page = GuestPage(GPA, BASE, size)
    assert pvalidate(rmp_with(private(size=entry_size)), Guest(ASID), page, validated=False) == outcome
    assert rmpadjust(rmp_with(private(size=entry_size)), Guest(ASID), page, 1, Perm.READ) == outcome
    inside = GuestPage(GPA + PAGE, BASE + PAGE, PageSize.LARGE)
    rmp = rmp_with(private(size=entry_size))
    assert pvalidate(rmp, Guest(ASID), inside, validated=False) == Result(Code.FAIL_INPUT)


RMPADJUSTS = {
    "gives": (0, 1, Perm.READ | Perm.WRITE, Code.SUCCESS),
    "takes": (1, 3, NO_PERMS, Code.SUCCESS),
    "itself": (1, 1, Perm.READ, Code.FAIL_PERMISSION),
    "the more privileged": (2, 1, Perm.READ, Code.FAIL_PERMISSION),
    "what it does not have": (1, 2, Perm.WRITE, Code.FAIL_PERMISSION),
    "no VMPL": (0, 4, Perm.READ, Code.FAIL_INPUT),
    "no right": (0, 1, Perm(0x20), Code.FAIL_INPUT),
}


@pytest.mark.parametrize("case", RMPADJUSTS)
def test_rmpadjust(case: str) -> None:
    own, target, perms, code = RMPADJUSTS[case]
    before = private(perms=(ALL_PERMS, Perm.READ, NO_PERMS, NO_PERMS))
    rmp = rmp_with(before)
    assert rmpadjust(rmp, Guest(ASID, own), GuestPage(GPA, BASE), target, perms) == Result(code)
    after = rmp.entry(BASE)
    if code:
        assert after == before
    else:
        assert [after.perms[n] for n in range(4)] == [perms if n == target else before.perms[n] for n in range(4)]


def test_only_vmpl0_makes_a_vmsa() -> None:
    rmp = rmp_with(private(perms=(ALL_PERMS,) * 4))
    page = GuestPage(GPA, BASE)
    assert not vmrun(rmp, Guest(ASID), BASE)
    assert rmpadjust(rmp, Guest(ASID, 1), page, 2, Perm.READ, vmsa=True) == Result(Code.SUCCESS)
    assert not vmrun(rmp, Guest(ASID), BASE)
    assert rmpadjust(rmp, Guest(ASID), page, 1, NO_PERMS, vmsa=True) == Result(Code.SUCCESS)
    assert vmrun(rmp, Guest(ASID), BASE)
    assert not vmrun(rmp, Guest(ASID + 1), BASE)
    assert pvalidate(rmp, Guest(ASID), page, validated=False) == Result(Code.SUCCESS)
    assert not vmrun(rmp, Guest(ASID), BASE)


def test_rmpadjust_of_what_is_not_validated() -> None:
    rmp = rmp_with(private(validated=False))
    told = rmpadjust(rmp, Guest(ASID), GuestPage(GPA, BASE), 1, Perm.READ)
    assert told == Fault(Trap.VMM_COMMUNICATION, 0x404)


def test_host_reads_and_writes() -> None:
    rmp = rmp_with(private())
    forbidden = Fault(Trap.PAGE_FAULT, 0x8000_0003)
    assert host_write(rmp, BASE) == forbidden
    assert host_write(rmp, BASE + PAGE) is None
    assert host_write(rmp, BASE + PAGE, PageSize.LARGE) == forbidden
    assert host_write(rmp, BASE + LARGE, PageSize.LARGE) is None
    assert host_reads_ciphertext(rmp, BASE, hiding=False)
    assert [host_reads_ciphertext(rmp, BASE + at, hiding=True) for at in (0, PAGE)] == [False, True]


# Bits of the error code beside present, RMP and final or walk; what a VMPL has to be allowed.
ACCESSES = {
    (Kind.READ, False): (0, Perm.READ),
    (Kind.READ, True): (4, Perm.READ),
    (Kind.WRITE, False): (2, Perm.WRITE),
    (Kind.FETCH, False): (0x10, Perm.EXECUTE_SUPERVISOR),
    (Kind.FETCH, True): (0x14, Perm.EXECUTE_USER),
    (Kind.WALK, False): (0, Perm.READ),
    (Kind.WALK_UPDATE, False): (2, Perm.WRITE),
}


@pytest.mark.parametrize("kind", ACCESSES, ids=str)
def test_guest_access(kind: tuple[Kind, bool]) -> None:
    bits, perm = ACCESSES[kind]
    where = 1 << 33 if kind[0] in (Kind.WALK, Kind.WALK_UPDATE) else 1 << 32
    code = 1 | 1 << 31 | 1 << 34 | where | bits
    access = Access(kind[0], GPA, BASE + 8 & -8, private=kind[0] in (Kind.READ, Kind.WRITE), user=kind[1])
    for vmpl, perms in product(range(4), (perm, ALL_PERMS & ~perm)):
        rmp = rmp_with(private(perms=tuple(perms if n == vmpl else ALL_PERMS for n in range(4))))
        told = guest_access(rmp, Guest(ASID, vmpl), access)
        assert told == (None if perms == perm else Fault(Trap.NESTED_PAGE_FAULT, code | BY_VMPL))
    assert guest_access(rmp_with(private(validated=False)), Guest(ASID), access) == Fault(Trap.VMM_COMMUNICATION, 0x404)
    assert guest_access(rmp_with(RmpEntry()), Guest(ASID), access) == Fault(Trap.NESTED_PAGE_FAULT, code)
    large = rmp_with(private(size=PageSize.LARGE))
    assert guest_access(large, Guest(ASID), access) == Fault(Trap.NESTED_PAGE_FAULT, code | SIZEM)
    in_large = Access(kind[0], GPA + PAGE, BASE + PAGE, user=kind[1], size=PageSize.LARGE)
    assert guest_access(large, Guest(ASID), in_large) is None
    assert guest_access(rmp_with(private()), Guest(ASID), Access(kind[0], GPA, BASE, size=PageSize.LARGE)) is not None


def test_shared_access() -> None:
    shared = {kind: Access(kind, GPA, BASE, private=False) for kind in (Kind.READ, Kind.WRITE)}
    for entry in (RmpEntry(), private(), private(asid=ASID + 1)):
        rmp = rmp_with(entry)
        assert guest_access(rmp, Guest(ASID), shared[Kind.READ]) is None
        told = guest_access(rmp, Guest(ASID), shared[Kind.WRITE])
        assert told == (Fault(Trap.NESTED_PAGE_FAULT, 0x1_8000_0003) if entry.assigned else None)


class HostileHost(RuleBasedStateMachine):
    """Any order of RMPUPDATE and PVALIDATE: a guest that takes each GPA once never finds another page behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.rmp = Rmp(BASE, LARGE)
        self.taken: dict[int, int] = {}

    @rule(page=st.integers(0, 3), gpa=st.integers(0, 2), assigned=st.booleans(), immutable=st.booleans())
    def host(self, page: int, gpa: int, assigned: bool, immutable: bool) -> None:
        new = NewState(True, GPA + gpa * PAGE, immutable=immutable, asid=ASID) if assigned else NewState(False)
        rmpupdate(self.rmp, BASE + page * PAGE, new)

    @rule(page=st.integers(0, 3), gpa=st.integers(0, 2))
    def guest(self, page: int, gpa: int) -> None:
        """The guest takes every GPA once, through the page that the host has put there."""
        if gpa in self.taken:
            return
        told = pvalidate(self.rmp, Guest(ASID), GuestPage(GPA + gpa * PAGE, BASE + page * PAGE), validated=True)
        if told == Result(Code.SUCCESS):
            self.taken[gpa] = page

    @invariant()
    def a_gpa_reaches_the_page_that_was_taken(self) -> None:
        for page, gpa in product(range(4), range(3)):
            access = Access(Kind.WRITE, GPA + gpa * PAGE, BASE + page * PAGE)
            if guest_access(self.rmp, Guest(ASID), access) is None:
                assert self.taken[gpa] == page


TestHostileHost = HostileHost.TestCase
TestHostileHost.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
