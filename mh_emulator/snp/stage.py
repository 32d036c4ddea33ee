"""Where a case is played: hosts of one part, and what every command, instruction and message was told."""

from __future__ import annotations

from collections.abc import Iterable

from mh_builder.firmware.snp import SnpPage, pages_at
from mh_builder.parts import Part
from mh_emulator.psp.snp.command import SnpCommand
from mh_emulator.psp.snp.launch import LaunchStart
from mh_emulator.psp.status import Status
from mh_emulator.rmp.access import Guest, vmrun
from mh_emulator.snp.host import Launched, SnpHost
from mh_emulator.snp.notes import Notes, Step

GPA = 0x10_0000
_VMEXIT_INVALID = (1 << 64) - 1
IMAGE = b"helper".ljust(0x2000, b"\xf4")


class Stage(Notes):
    """One case on one part."""

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        self._seeds = 0
        self.host = self.another_host()

    def another_host(self) -> SnpHost:
        """One more machine of the same part."""
        self._seeds += 1
        host = SnpHost(self.part, self._seeds)
        host.psp.watchers.append(self._note_command)
        return host

    def guest(self, pages: Iterable[SnpPage] = (), start: LaunchStart | None = None) -> Launched:
        """A running guest of two pages, or of those given, on the first host."""
        return self.host.run(list(pages) or pages_at(GPA, IMAGE), start)

    def vmrun(self, asid: int, vmsa_spa: int) -> bool:
        """Whether VMRUN takes a page as a VMSA, which is noted."""
        taken = vmrun(self.host.rmp, Guest(asid), vmsa_spa)
        self.note(Step("VMRUN", 0, "SUCCESS") if taken else Step("VMRUN", _VMEXIT_INVALID, "VMEXIT_INVALID"))
        return taken

    def _note_command(self, command: SnpCommand, status: Status) -> None:
        self.note(Step(f"SNP_{command.name}", status, status.name))
