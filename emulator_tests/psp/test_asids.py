"""ASIDs, keys behind them, and handles."""

from __future__ import annotations

import pytest

from emulator_tests.psp.rig import ASID, BASE, DATA, OTHER_ASID, PAGE, G, Rig, S, status
from mh_emulator.psp.command import GuestState, PlatformState
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.status import CommandError, Status


@pytest.mark.parametrize(
    ("part", "asid", "expected"),
    [
        ("milan", 0, S.INVALID_ASID),
        ("milan", -1, S.INVALID_ASID),
        ("milan", 510, S.INVALID_ASID),
        ("milan", 509, S.SUCCESS),
        ("milan", 99, S.INVALID_ASID),
        ("genoa", 1006, S.SUCCESS),
        ("turin", 1006, S.SUCCESS),
        ("naples", 16, S.INVALID_ASID),
        ("naples", 15, S.SUCCESS),
        ("naples", 4, S.INVALID_ASID),
    ],
)
def test_asid_ranges(part: str, asid: int, expected: Status) -> None:
    rig = Rig(part)
    handle = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(handle, asid)) is expected


def test_an_owned_asid_is_refused_before_an_active_guest_is() -> None:
    rig = Rig()
    rig.guest()
    second = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.ASID_OWNED
    rig.fw.activate(second, OTHER_ASID)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.ASID_OWNED
    assert status(lambda: rig.fw.activate(second, OTHER_ASID + 1)) is S.ACTIVE


@pytest.mark.parametrize("state", [G.RUNNING, G.SUPDATE, G.SENT])
def test_the_asid_of_a_guest_that_ran_is_dirty_until_wbinvd_and_df_flush(state: GuestState) -> None:
    rig = Rig()
    first = rig.guest(state)
    rig.fw.deactivate(first)
    assert not rig.fw.is_runnable(ASID)
    rig.fw.decommission(first)
    second = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(second, ASID)) is S.DF_FLUSH_REQUIRED
    assert status(rig.fw.df_flush) is S.WBINVD_REQUIRED
    rig.fw.wbinvd()
    rig.fw.df_flush()
    rig.fw.activate(second, ASID)


@pytest.mark.parametrize("state", [G.LUPDATE, G.LSECRET, G.RUPDATE])
def test_the_asid_of_a_guest_that_never_ran_stays_clean(state: GuestState) -> None:
    rig = Rig()
    first = rig.guest(state)
    assert not rig.fw.is_runnable(ASID)
    rig.fw.deactivate(first)
    rig.fw.activate(rig.guest(asid=0), ASID)


@pytest.mark.parametrize("again", [False, True])
def test_all_asids_are_dirty_after_init(again: bool) -> None:
    rig = Rig(init=again)
    if again:
        rig.fw.shutdown()
    rig.fw.init()
    handle = rig.guest(asid=0)
    assert status(lambda: rig.fw.activate(handle, ASID)) is S.DF_FLUSH_REQUIRED
    assert status(rig.fw.df_flush) is S.WBINVD_REQUIRED
    rig.fw.wbinvd()
    rig.fw.df_flush()
    rig.fw.activate(handle, ASID)


@pytest.mark.parametrize(("state", "runnable"), [
    (G.LUPDATE, False), (G.LSECRET, False), (G.RUPDATE, False), (G.RUNNING, True), (G.SUPDATE, True),
])  # fmt: skip
def test_activation_is_pending_until_the_launch_is_finished(state: GuestState, runnable: bool) -> None:
    rig = Rig()
    handle = rig.guest(state, asid=0)
    rig.fw.activate(handle, ASID)
    assert rig.fw.is_runnable(ASID) is runnable


def test_a_guest_that_has_left_cannot_be_activated_but_the_asid_comes_first() -> None:
    rig = Rig()
    handle = rig.guest(G.SENT, asid=0)
    assert status(lambda: rig.fw.activate(handle, 0)) is S.INVALID_ASID
    assert status(lambda: rig.fw.activate(handle, ASID)) is S.INVALID_GUEST_STATE


@pytest.mark.parametrize(
    ("policy", "other", "expected"),
    [
        (0, 0, S.SUCCESS),
        (Policy.NODBG, Policy.NODBG, S.SUCCESS),
        (Policy.NODBG, 0, S.POLICY_FAILURE),
        (Policy.NOKS, Policy.NOKS, S.POLICY_FAILURE),
        (1 << 16, 1 << 16 | 1 << 24, S.POLICY_FAILURE),
    ],
)
@pytest.mark.parametrize("way", [G.LUPDATE, G.RUPDATE])
@pytest.mark.parametrize("state", [G.LUPDATE, G.RUNNING, G.SENT])
def test_key_sharing(policy: int, other: int, expected: Status, way: GuestState, state: GuestState) -> None:
    """Whatever the state of the guest whose key it is."""
    rig = Rig()
    first = rig.guest(state, policy=policy)
    assert status(lambda: rig.guest(way, policy=other, asid=OTHER_ASID, handle=first)) is expected
    if expected is S.SUCCESS:
        rig.dram.write_private(ASID, BASE, DATA)
        assert rig.dram.read_private(OTHER_ASID, BASE, PAGE) == DATA


@pytest.mark.parametrize("handle", [9, -1, 1 << 32])
def test_key_sharing_with_nobody(handle: int) -> None:
    rig = Rig()
    assert status(lambda: rig.fw.launch_start(0, None, handle)) is S.INVALID_GUEST
    assert status(lambda: rig.fw.receive_start(0, rig.session(0), handle)) is S.INVALID_GUEST


def test_guests_have_keys_of_their_own_and_reactivation_keeps_them() -> None:
    rig = Rig()
    first, _ = rig.guest(), rig.guest(asid=OTHER_ASID)
    rig.dram.write_private(ASID, BASE, DATA)
    assert rig.dram.read_private(OTHER_ASID, BASE, PAGE) != DATA
    rig.fw.deactivate(first)
    rig.fw.activate(first, OTHER_ASID + 1)
    assert rig.dram.read_private(OTHER_ASID + 1, BASE, PAGE) == DATA


def test_deactivation_leaves_the_key_in_the_memory_controller() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING)
    rig.dram.write_private(ASID, BASE, DATA)
    rig.fw.deactivate(handle)
    rig.fw.decommission(handle)
    rig.fw.shutdown()
    assert rig.dram.read_private(ASID, BASE, PAGE) == DATA


def test_platform_states() -> None:
    rig = Rig(init=False)
    seen = [rig.fw.state]
    rig.init()
    seen.append(rig.fw.state)
    first, second = rig.fw.launch_start(0), rig.fw.receive_start(0, rig.session(0))
    seen.append(rig.fw.state)
    rig.fw.decommission(first)
    seen.append(rig.fw.state)
    rig.fw.decommission(second)
    seen.append(rig.fw.state)
    rig.guest()
    assert rig.fw.platform_status() == ((1, 55, 29), PlatformState.WORKING, True, 1)
    rig.fw.shutdown()
    assert rig.fw.platform_status() == ((1, 55, 29), PlatformState.UNINIT, False, 0)
    assert [state.name for state in seen] == ["UNINIT", "INIT", "WORKING", "WORKING", "INIT"]


def test_guest_status_never_fails_for_a_wrong_handle() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, policy=5 << 16)
    assert rig.fw.guest_status(handle) == (5 << 16, ASID, G.RUNNING)
    assert rig.fw.guest_status(99) == (0, 0, G.UNINIT)


def test_handles_are_a_limited_resource_and_are_used_again() -> None:
    rig = Rig()
    handles = [rig.fw.launch_start(0) for _ in range(1024)]
    assert handles == list(range(1, 1025))
    assert status(lambda: rig.fw.launch_start(0)) is S.RESOURCE_LIMIT
    assert status(lambda: rig.fw.receive_start(0, rig.session(0))) is S.RESOURCE_LIMIT
    rig.fw.decommission(77)
    assert rig.fw.launch_start(0) == 77


def test_an_error_names_command_and_status() -> None:
    with pytest.raises(CommandError, match=r"^LAUNCH_FINISH: INVALID_PLATFORM_STATE \(0x01\)$"):
        Rig().fw.launch_finish(1)


def test_watchers_see_every_command_and_what_it_returned() -> None:
    rig = Rig()
    rig.calls.clear()
    handle = rig.guest()
    assert status(lambda: rig.fw.launch_finish(handle)) is S.INVALID_GUEST_STATE
    assert rig.calls == [
        ("LAUNCH_START", S.SUCCESS), ("ACTIVATE", S.SUCCESS), ("LAUNCH_FINISH", S.INVALID_GUEST_STATE),
    ]  # fmt: skip


def test_status_codes_are_those_of_the_specification() -> None:
    assert [code.value for code in Status if code < 0x19] == list(range(0x19))
    assert (S.POLICY_FAILURE, S.ASID_OWNED, S.INVALID_GUEST, S.SECURE_DATA_INVALID) == (0x07, 0x0C, 0x10, 0x18)


def test_status_codes_of_snp_are_those_of_linux() -> None:
    """The ABI's that a command here returns: include/uapi/linux/psp-sev.h, sev_ret_code."""
    assert {code.name: code.value for code in Status if code >= 0x19} == {
        "INVALID_PAGE_SIZE": 0x19, "INVALID_PAGE_STATE": 0x1A, "INVALID_MDATA_ENTRY": 0x1B, "INVALID_PAGE_OWNER": 0x1C,
        "AEAD_OFLOW": 0x1D, "BAD_SVN": 0x21, "INVALID_KEY": 0x27,
    }  # fmt: skip
