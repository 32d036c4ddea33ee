"""Rules of the reference, each changed in one place."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from emulator_tests.reference import (
    authenticators,
    batch,
    hello,
    maps,
    memory,
    packets,
    part,
    session,
    submission,
    vcpu,
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """The function `name` of `owner`, with `new` in the place of `old`, which it has once."""

    rule: str
    """What is no longer so."""
    owner: type | ModuleType
    name: str
    old: str
    new: str

    @property
    def function(self) -> Any:
        """The changed function."""
        original = getattr(self.owner, self.name)
        text = textwrap.dedent(inspect.getsource(original))
        if text.count(self.old) != 1:
            raise ValueError(f"{self.owner.__name__}.{self.name} has {text.count(self.old)} times {self.old!r}")
        made: dict[str, Any] = {}
        code = compile(f"from __future__ import annotations\n{text.replace(self.old, self.new)}", self.rule, "exec")
        exec(code, original.__globals__, made)  # noqa: S102 - the text is the reference's own
        function: FunctionType = made[self.name]
        return function


MUTANTS = (
    Mutant("the last page is in range", memory.Window, "_page", "> self.size", ">= self.size"),
    Mutant("alignment comes before range", memory.Window, "_page",
           "address % PAGE", "address < self.size and address % PAGE"),
    Mutant("the helper's pages are protected", memory.Window, "_page", "any(", "all("),
    Mutant("all pages of a chunk are looked at", memory.Window, "refusal", "range(pages)", "range(1)"),
    Mutant("a shared page is refused", maps.Maps, "claim", "not self.shared.isdisjoint(word)", "False"),
    Mutant("a page moves once in an epoch", maps.Maps, "claim", "self._moved.update(pages)", "pass"),
    Mutant("earlier epochs count after RESUME", maps.Maps, "claim", "if earlier", "if False"),
    Mutant("earlier epochs do not count before", maps.Maps, "claim", "if earlier", "if True"),
    Mutant("a refused chunk gives its pages back", maps.Maps, "give_back",
           "self._moved.difference_update(pages)", "pass"),
    Mutant("a new epoch forgets what has moved", maps.Maps, "turn", "self._moved.clear()", "pass"),
    Mutant("a new session forgets what has moved", maps.Maps, "reset", "self._moved.clear()", "pass"),
    Mutant("a new session keeps what is shared", maps.Maps, "reset",
           "self._moved.clear()", "self._moved.clear(); self.shared.clear()"),
    Mutant("a batch may end at the last slot", submission, "_is_batch", "> slots", ">= slots"),
    Mutant("a chunk is no longer than its batch", submission, "_is_batch", "<= entry.count", "<= 512"),
    Mutant("a list has no address", submission, "_is_batch", " and entry.address == 0", ""),
    Mutant("the last slot is one", submission, "_is_bounded", "< slots", "< slots - 1"),
    Mutant("unused fields are 0", submission, "_is_zero_elsewhere", "*entry.reserved1", ""),
    Mutant("the urgent lane serves pages alone", submission, "_serves", "return Uses.URGENT in uses", "return True"),
    Mutant("START has no more rings than there are", submission, "refusal", "<= rings", "<= rings + 1"),
    Mutant("the address comes before the turn", packets, "page_refusal", "found.address != wanted.address", "False"),
    Mutant("the session comes before the stream", packets, "_shape_refusal",
           "bytes(found.session) != bytes(wanted.session)",
           "found.stream == wanted.stream and bytes(found.session) != bytes(wanted.session)"),
    Mutant("an old sequence is a replay", packets, "_turn_refusal", "found.sequence < wanted.sequence", "False"),
    Mutant("the epoch comes before the sequence", packets, "_turn_refusal",
           "found.epoch != wanted.epoch", "found.sequence == wanted.sequence and found.epoch != wanted.epoch"),
    Mutant("an end counts the urgent lane", packets, "end_refusal", "found.urgent != wanted.urgent", "False"),
    Mutant("totals are compared", packets, "end_refusal", "found.address != wanted.address", "False"),
    Mutant("a refused import skips the rest", batch.Batch, "serve", "status != Status.MH_DONE and", "False and"),
    Mutant("an import draws once a batch", batch.Batch, "_import", "is_zero =", "self._draw(); is_zero ="),
    Mutant("nothing moves when the epoch is over", batch.Batch, "serve", "self._part.has_ended", "False"),
    Mutant("a share may come at any time", batch.Batch, "serve",
            "!= Op.MH_OP_SHARE and self._part.has_ended", "and self._part.has_ended"),
    Mutant("zeros travel without data", batch.Batch, "_export", "any(plain)", "True"),
    Mutant("VMSAs have a kind of their own", batch.Batch, "_import", "if vmsa else", "if False else"),
    Mutant("a batch has the first status", batch.Batch, "_answer", "self._status or status", "status or self._status"),
    Mutant("a wrong tag ends the session", batch.Batch, "_chunk", "status == Status.MH_BAD_TAG", "False"),
    Mutant("an ended session counts nothing", part.Part, "forget", "self.epoch = self.pages = 0", "pass"),
    Mutant("counts stay when a ring finishes", part.Part, "finish", "self.wipe()", "self.wipe(); self.pages = 0"),
    Mutant("an epoch counts its pages", part.Part, "attend", "self.epoch_pages = 0", "pass"),
    Mutant("a ring waits for its epoch", part.Part, "attend", "self.has_ended = False", "pass"),
    Mutant("the last ring ends the epoch", session.Session, "ends_epoch", "< self.streams", "< 1"),
    Mutant("the last ring ends the session", session.Session, "finish", "== self.streams", "== 1"),
    Mutant("totals are of all rings", session.Session, "finish", "+= pages", "= pages"),
    Mutant("the guest is another", hello.Hello, "_terms_refusal", "bytes(peer.guest) != self.secret.guest", "False"),
    Mutant("a target is no weaker than its source", hello.Hello, "_terms_refusal", "or target < source", ""),
    Mutant("versions overlap", hello, "_form_refusal", "min(peer.high, abi.MH_PROTOCOL_HIGH)", "peer.high"),
    Mutant("the version comes before reserved fields", hello, "_form_refusal",
           "if min", "if not any(peer.reserved) and min"),
    Mutant("a nonce is not ours", hello.Hello, "refusal", "bytes(hello.nonce) == self.nonce", "False"),
    Mutant("a hello without randomness is none", vcpu.Vcpu, "_hello", "self.part.phase = Phase.IDLE", "pass"),
    Mutant("a share without secret uses our hello up", vcpu.Vcpu, "_start",
           "self.part.hello = None", "return Status.MH_BAD_SHARE"),
    Mutant("the start of a ring with a session ends it", vcpu.Vcpu, "start", "or self.part.phase >= Phase.SOURCE", ""),
    Mutant("the urgent lane comes first", vcpu.Vcpu, "_serve", "self._serve_all(self._urgent)\n    while", "while"),
    Mutant("a lane may be full", vcpu.Vcpu, "_has_work", "> lane.layout.entries", ">= lane.layout.entries"),
    Mutant("other totals end the session", vcpu.Vcpu, "_agree",
           "(Status.MH_BAD_TAG, Status.MH_BAD_TOTALS)", "(Status.MH_BAD_TAG,)"),
    Mutant("a strict source has not changed", authenticators.Authenticators, "are_right", "== contents", "!= b''"),
    Mutant("a ring looks at its own pages", authenticators.Authenticators, "are_right", "stream in streams", "True"),
    Mutant("a strict chunk is one page", batch.Batch, "serve", "self._entry.chunk != 1", "False"),
    Mutant("RESUME needs a session", vcpu.Vcpu, "_resume", "self.part.phase not in MOVING", "False"),
)  # fmt: skip
