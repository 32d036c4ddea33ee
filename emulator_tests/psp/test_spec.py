"""Every command with every field out of range, in every state, against a table written from the specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from emulator_tests.psp.rig import (
    ASID,
    ES_ASID,
    PAGE,
    REGION,
    TEK,
    TIK,
    Rig,
    dh_certificate,
    packet,
    point,
    receiver,
    session,
    status,
)
from emulator_tests.psp.spec import COMMANDS, Model, expected, nothing
from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.command import PlatformState
from mh_emulator.psp.firmware import Firmware
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.session import Session
from mh_emulator.psp.status import Status
from mh_emulator.psp.transport import Receiver

MEMORY = 6 * PAGE
# The border of two windows of 64 MiB lies in the middle.
START = 0x12_3400_0000 - MEMORY // 2
END = START + MEMORY

Fields = dict[str, Any]

GOOD: Fields = {
    "handle": 1, "shared": 0, "policy": 0, "asid": ASID, "spa": START, "source": START, "destination": START + PAGE,
    "size": PAGE, "session": "good", "header": 52, "room": PAGE, "fits": True, "mac": True, "region": REGION,
}  # fmt: skip
ADDRESSES = [
    START + 8, END, END - PAGE, START + 16, END - 16, START - PAGE, 0, START | 1 << 51, 1 << 46, (1 << 64) - 16,
]  # fmt: skip
FLAWS: Mapping[str, list[Any]] = {
    "handle": [2, 3, 0, 1025, (1 << 32) - 1],
    "shared": [1, 2, 7, (1 << 32) - 1],
    "policy": [1, 2, 4, 8, 0x40, 0x8000, 1 << 16 | 55 << 24, 1 << 16 | 56 << 24, 2 << 16],
    "asid": [ASID + 1, ES_ASID, 0, 99, 509, 510, (1 << 32) - 1],
    "spa": ADDRESSES,
    "source": ADDRESSES,
    "destination": ADDRESSES,
    "size": [16, 48, 2 * PAGE, 0, 1, 47, 128, 0xCF, 0xD0, 0x5000, 0x5010, 1 << 31],
    "session": [None, "bad", "short", "no point"],
    "header": [51, 53, 0],
    "room": [0x5000, 1 << 31, 16, 0],
    "fits": [False],
    "mac": [False],
    "region": [0, REGION + PAGE],
}
"""Values that at least one command refuses in at least one state."""

TAKES: Mapping[str, tuple[str, ...]] = {
    "INIT": ("region",),
    "LAUNCH_START": ("policy", "session", "shared"),
    "RECEIVE_START": ("policy", "session", "shared"),
    "ACTIVATE": ("handle", "asid"),
    "LAUNCH_UPDATE_DATA": ("handle", "spa", "size"),
    "LAUNCH_UPDATE_VMSA": ("handle", "spa", "size"),
    "LAUNCH_MEASURE": ("handle", "size"),
    "LAUNCH_SECRET": ("handle", "spa", "size", "header", "fits", "mac"),
    "ATTESTATION": ("handle", "size"),
    "SEND_START": ("handle", "size"),
    "SEND_UPDATE_DATA": ("handle", "spa", "size", "header", "room"),
    "SEND_UPDATE_VMSA": ("handle", "spa", "size", "header", "room"),
    "RECEIVE_UPDATE_DATA": ("handle", "spa", "size", "header", "fits", "mac"),
    "RECEIVE_UPDATE_VMSA": ("handle", "spa", "size", "header", "fits", "mac"),
    "COPY": ("handle", "source", "destination", "size"),
    "DBG_DECRYPT": ("handle", "source", "destination", "size"),
    "DBG_ENCRYPT": ("handle", "source", "destination", "size"),
} | dict.fromkeys(("SHUTDOWN", "DF_FLUSH", "PDH_CERT_EXPORT", "PDH_GEN"), ()) | dict.fromkeys(
    ("DEACTIVATE", "DECOMMISSION", "LAUNCH_FINISH", "SEND_FINISH", "SEND_CANCEL", "RECEIVE_FINISH"), ("handle",)
)  # fmt: skip
"""The fields of each command."""


class Host:
    """Turns rows of the table into calls."""

    def __init__(self) -> None:
        self.dram = Dram(MEMORY, START, PARTS["milan"], 3)
        self.fw = Firmware(self.dram, 3)
        self.model = Model(START, MEMORY)
        self.measured: dict[int, bytes] = {}
        self.pdh = self.fw._sp.identity.certificates.pdh
        self.receiver: Receiver = _receiver()

    def check(self, command: str, fields: Fields) -> int:
        """Give the command; it must return what the table says, and change something only if that is success."""
        known = self.known(fields)
        wanted = expected(self.model, command, known)
        before = self.everything() if wanted else None
        found = status(lambda: _CALLS[command](self, fields))
        assert found == wanted, (command, fields, found)
        if wanted:
            assert self.everything() == before, (command, fields)
        else:
            COMMANDS[command][1](self.model, known)
        return wanted

    def known(self, fields: Fields) -> Fields:
        """The fields as the table names them: which key a session was made for; what a small packet holds."""
        made_for = ("good", self.model.pdh) if fields["session"] == "good" else fields["session"]
        return fields | {"session": made_for, "fits": fields["fits"] or fields["size"] == 64}

    def everything(self) -> tuple[object, ...]:
        """All that anybody can see."""
        raw = tuple(self.dram.peek_raw(spa) for spa in range(START, END, PAGE))
        return self.guests(), self.fw.platform_status(), raw

    def guests(self) -> list[tuple[int, int, int, str]]:
        guests = self.fw._sp.guests
        return sorted((guest.handle, guest.policy, guest.asid, guest.state.name) for guest in guests)

    def session(self, kind: str | None, policy: int) -> Session | None:
        if kind is None:
            return None
        good = session(self.pdh, policy)
        if kind == "short":
            return Session(good.certificate, good.blob[:-1])
        if kind == "no point":
            return Session(good.certificate[:20] + bytes(144) + good.certificate[164:], good.blob)
        return good if kind != "bad" else Session(dh_certificate(point(self.pdh)), good.blob)

    def packet(self, context: int, fields: Fields) -> Packet:
        size = min(fields["size"], 0x6000) if fields["fits"] else 64
        guest = self.model.guests.get(fields["handle"])
        keys = (TEK, TIK) if guest and guest.with_session else (bytes(16), bytes(16))
        bound = self.measured.get(fields["handle"], b"") if context == 1 else b""
        made = packet(context, bytes(size), bound=bound, tek=keys[0], tik=keys[1] if fields["mac"] else b"x" * 16)
        return Packet(made.header[: fields["header"]].ljust(fields["header"], b"x"), made.data)

    def renew_pdh(self) -> None:
        self.fw.pdh_gen()
        self.pdh = self.fw.pdh_cert_export().pdh

    def measure(self, fields: Fields) -> None:
        self.measured[fields["handle"]] = self.fw.launch_measure(fields["handle"], fields["size"]).mac


_CALLS: Mapping[str, Callable[[Host, Fields], object]] = {
    "INIT": lambda h, f: h.fw.init(f["region"]),
    "SHUTDOWN": lambda h, _f: h.fw.shutdown(),
    "DF_FLUSH": lambda h, _f: h.fw.df_flush(),
    "PDH_CERT_EXPORT": lambda h, _f: h.fw.pdh_cert_export(),
    "PDH_GEN": lambda h, _f: h.renew_pdh(),
    "LAUNCH_START": lambda h, f: h.fw.launch_start(f["policy"], h.session(f["session"], f["policy"]), f["shared"]),
    "RECEIVE_START": lambda h, f: h.fw.receive_start(
        f["policy"], h.session(f["session"], f["policy"]) or Session(b"", b""), f["shared"]
    ),
    "ACTIVATE": lambda h, f: h.fw.activate(f["handle"], f["asid"]),
    "DEACTIVATE": lambda h, f: h.fw.deactivate(f["handle"]),
    "DECOMMISSION": lambda h, f: h.fw.decommission(f["handle"]),
    "LAUNCH_UPDATE_DATA": lambda h, f: h.fw.launch_update_data(f["handle"], f["spa"], f["size"]),
    "LAUNCH_UPDATE_VMSA": lambda h, f: h.fw.launch_update_vmsa(f["handle"], f["spa"], f["size"]),
    "LAUNCH_MEASURE": lambda h, f: h.measure(f),
    "LAUNCH_SECRET": lambda h, f: h.fw.launch_secret(f["handle"], h.packet(1, f), f["spa"], f["size"]),
    "LAUNCH_FINISH": lambda h, f: h.fw.launch_finish(f["handle"]),
    "ATTESTATION": lambda h, f: h.fw.attestation(f["handle"], bytes(16), f["size"]),
    "SEND_START": lambda h, f: h.fw.send_start(f["handle"], h.receiver, f["size"]),
    "SEND_UPDATE_DATA": lambda h, f: h.fw.send_update_data(f["handle"], f["spa"], f["size"], f["header"], f["room"]),
    "SEND_UPDATE_VMSA": lambda h, f: h.fw.send_update_vmsa(f["handle"], f["spa"], f["size"], f["header"], f["room"]),
    "RECEIVE_UPDATE_VMSA": lambda h, f: h.fw.receive_update_vmsa(f["handle"], h.packet(2, f), f["spa"], f["size"]),
    "SEND_FINISH": lambda h, f: h.fw.send_finish(f["handle"]),
    "SEND_CANCEL": lambda h, f: h.fw.send_cancel(f["handle"]),
    "RECEIVE_UPDATE_DATA": lambda h, f: h.fw.receive_update_data(f["handle"], h.packet(2, f), f["spa"], f["size"]),
    "RECEIVE_FINISH": lambda h, f: h.fw.receive_finish(f["handle"]),
    "COPY": lambda h, f: h.fw.copy(f["handle"], f["source"], f["destination"], f["size"]),
    "DBG_DECRYPT": lambda h, f: h.fw.dbg_decrypt(f["handle"], f["source"], f["destination"], f["size"]),
    "DBG_ENCRYPT": lambda h, f: h.fw.dbg_encrypt(f["handle"], f["source"], f["destination"], f["size"]),
}


@cache
def _receiver() -> Receiver:
    return receiver(Rig(seed=9).fw)


def fitting(model: Model, command: str, pick: int) -> Fields:
    """Fields with which a command has good chances in the platform's state; `pick` chooses among guests."""
    fields = good_fields(command)
    checks = COMMANDS[command][0]
    handles = sorted(model.guests) or [1]
    ready = [n for n in handles if model.guests and all(c[2](model, fields | {"handle": n}) for c in checks)]
    fields["handle"] = (ready or handles)[pick % len(ready or handles)]
    es = fields["handle"] in model.guests and model.guests[fields["handle"]].policy & 4
    fields["asid"] = ES_ASID + pick if es else ASID + pick
    return fields


class HostileHost(RuleBasedStateMachine):
    """A host that gives any command at any time, and knows what it must be told."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.model = self.host.model
        self.take_into_use()

    def take_into_use(self) -> None:
        self.host.check("INIT", GOOD)
        self.wbinvd()
        self.host.check("DF_FLUSH", GOOD)

    @rule()
    def wbinvd(self) -> None:
        self.host.fw.wbinvd()
        self.model.flushed = True

    @rule(policy=st.sampled_from([0, 1, 4, 8]), pick=st.integers(0, 2), session=st.sampled_from([None, "good"]))
    def begin(self, policy: int, pick: int, session: str | None) -> None:
        """A guest of its own, with an ASID: what most commands need."""
        if self.model.pstate == "UNINIT":
            self.take_into_use()
        if len(self.model.guests) < 3:
            self.host.check("LAUNCH_START", GOOD | {"policy": policy, "session": session})
            self.host.check("ACTIVATE", fitting(self.model, "ACTIVATE", pick))

    @rule(commands=st.lists(st.sampled_from([*COMMANDS]), min_size=6, max_size=12), pick=st.integers(0, 2))
    def get_on(self, commands: list[str], pick: int) -> None:
        """Commands as a host gives them that knows what it does."""
        for command in commands:
            if command not in ("SHUTDOWN", "DECOMMISSION", "DEACTIVATE"):
                self.host.check(command, fitting(self.model, command, pick))

    @rule(
        command=st.sampled_from([name for name in COMMANDS if name != "SHUTDOWN"] * 2 + ["SHUTDOWN"]),
        pick=st.integers(0, 2),
        data=st.data(),
    )
    def give(self, command: str, pick: int, data: st.DataObject) -> None:
        """A command with up to two fields that are out of range."""
        fields = fitting(self.model, command, pick)
        for _ in range(2 if TAKES[command] else 0):
            name = data.draw(st.sampled_from(TAKES[command]))
            fields[name] = data.draw(st.sampled_from([fields[name], *FLAWS[name]]))
        self.host.check(command, fields)

    @invariant()
    def agrees(self) -> None:
        model, host = self.model, self.host
        assert host.guests() == sorted((n, g.policy, g.asid, g.state) for n, g in model.guests.items())
        assert host.fw.state is PlatformState[model.pstate]
        assert all(host.fw.is_runnable(asid) is (state == "in use") for asid, state in model.asids.items())
        active = [(guest.key, host.dram.key(guest.asid)) for guest in model.guests.values() if guest.asid]
        assert len({key for key, _ in active}) == len({installed for _, installed in active}) == len(set(active))


TestHostileHost = HostileHost.TestCase
TestHostileHost.settings = settings(max_examples=20, stateful_step_count=25, deadline=None, derandomize=True)


_LAUNCHED = ("LAUNCH_MEASURE", "LAUNCH_FINISH")
_START: Mapping[str, tuple[Fields, tuple[str, ...]]] = {
    "no guest": ({}, ()),
    "LUPDATE": ({}, ("LAUNCH_START", "ACTIVATE")),
    "LUPDATE, SEV-ES": ({"policy": 4, "asid": ES_ASID}, ("LAUNCH_START", "ACTIVATE")),
    "LUPDATE, no ASID": ({"session": None}, ("LAUNCH_START",)),
    "LSECRET": ({}, ("LAUNCH_START", "ACTIVATE", "LAUNCH_MEASURE")),
    "LSECRET, no ASID": ({}, ("LAUNCH_START", "LAUNCH_MEASURE")),
    "RUNNING": ({}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED)),
    "RUNNING, NODBG, NOSEND, NOKS": ({"policy": 11}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED)),
    "RUNNING, no ASID": ({}, ("LAUNCH_START", *_LAUNCHED)),
    "RUNNING, was activated": ({}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED, "DEACTIVATE")),
    "SUPDATE": ({}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED, "SEND_START")),
    "SUPDATE, no ASID": ({}, ("LAUNCH_START", *_LAUNCHED, "SEND_START")),
    "SENT": ({}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED, "SEND_START", "SEND_FINISH")),
    "SENT, no ASID": ({}, ("LAUNCH_START", *_LAUNCHED, "SEND_START", "SEND_FINISH")),
    "RUPDATE": ({}, ("RECEIVE_START", "ACTIVATE")),
    "SUPDATE, SEV-ES": ({"policy": 4, "asid": ES_ASID}, ("LAUNCH_START", "ACTIVATE", *_LAUNCHED, "SEND_START")),
    "RUPDATE, SEV-ES": ({"policy": 4, "asid": ES_ASID}, ("RECEIVE_START", "ACTIVATE")),
    "RUPDATE, no ASID": ({}, ("RECEIVE_START",)),
}
_PAIRED = 3
"""How many values of a field are combined with those of another."""


def good_fields(command: str) -> Fields:
    return GOOD | {"size": {"SEND_START": 128}.get(command, PAGE)}


def host_with(start: str) -> Host:
    host = Host()
    host.check("INIT", GOOD)
    host.fw.wbinvd()
    host.model.flushed = True
    host.check("DF_FLUSH", GOOD)
    fields, commands = _START[start]
    for command in commands:
        assert host.check(command, good_fields(command) | fields) == 0
    return host


@pytest.mark.parametrize("start", _START)
def test_every_command_with_every_field_out_of_range(start: str) -> None:
    """One field at a time, and two where the command would succeed."""
    host = host_with(start)
    for command, names in TAKES.items():
        good = good_fields(command) | _START[start][0]
        ready = expected(host.model, command, host.known(good)) == 0
        single = [{name: value} for name in names for value in FLAWS[name]]
        paired = [{name: value} for name in names for value in FLAWS[name][:_PAIRED]]
        double = [a | b for a, b in combinations(paired, 2) if a.keys() != b.keys()] if ready else []
        for flaws in ({}, *single, *double):
            if host.check(command, good | flaws) == 0 and COMMANDS[command][1] is not nothing:
                host = host_with(start)


def test_table_and_fields_name_the_same_commands() -> None:
    assert TAKES.keys() == COMMANDS.keys() == _CALLS.keys()


def test_nothing_but_init_works_before_init() -> None:
    host = Host()
    told = {command: status(lambda: _CALLS[command](host, GOOD)) for command in COMMANDS if command != "INIT"}  # noqa: B023
    assert {command for command, code in told.items() if code is not Status.INVALID_PLATFORM_STATE} == {
        "SHUTDOWN", "DF_FLUSH",
    }  # fmt: skip
    assert told["DF_FLUSH"] is Status.WBINVD_REQUIRED
