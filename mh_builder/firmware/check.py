"""Whether a firmware image may be given to a guest's owner: questions, each with an answer and a reason.

What cannot be answered is never a yes.
Source: QEMU, target/i386/sev.c (it refuses a reset vector of 0); Linux, arch/x86/kvm/svm/svm.c (SEV-ES guests have no
SMM); edk2, MdeModulePkg/Core/Dxe/Image/Image.c and MdePkg/Include/Library/DebugLib.h (what only a DEBUG build prints).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from uuid import UUID

from mh_abi.image import parse_image
from mh_builder.firmware import guids
from mh_builder.firmware.digests import Launch, Mode, digests_of
from mh_builder.firmware.entries import decode, finding
from mh_builder.firmware.errors import AbsentError, FirmwareError
from mh_builder.firmware.executable import X64, machine_name
from mh_builder.firmware.flash import Flash, read_flash
from mh_builder.firmware.inject import Carried, check_target, inject
from mh_builder.firmware.inventory import inventory
from mh_builder.firmware.measure import FlashLaunch
from mh_builder.firmware.metadata import inspect_metadata
from mh_builder.firmware.table import Table, read_table
from mh_builder.firmware.volume import TYPE_DXE_CORE, find_volumes
from mh_builder.schemes import name_of

_DEBUG_MESSAGE = b"Loading driver at 0x"
_MODES = {Mode.SEV: "SEV", Mode.SEV_ES: "SEV-ES", Mode.SNP: "SEV-SNP"}


class Answer(Enum):
    """To a question of yes or no."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Row:
    """A question, its answer, and why; whether a no of it is one to the whole image."""

    question: str
    answer: Answer
    reason: str
    decides: bool

    @property
    def refuses(self) -> bool:
        """Whether the image may not be given away because of it."""
        return self.decides and self.answer is Answer.NO


@dataclass(frozen=True)
class Subject:
    """What is checked: a flash image, be it part of an IGVM file, and what it is to be good for.

    `mode` is the kind of guest that it has to be launchable as, None for any; `helper` makes one that has to fit.
    """

    kind: str
    flash: bytes
    launch: Callable[[], Launch]
    carried: Callable[[], Carried]
    mode: Mode | None = None
    helper: Callable[[], bytes] | None = None

    @cached_property
    def parts(self) -> Flash:
        """The flash image, taken apart once. Raises `FirmwareError`."""
        return read_flash(self.flash)


def unreadable(reason: str) -> Row:
    """The only row of what is no firmware image."""
    return Row("readable", Answer.NO, reason, decides=True)


def check(subject: Subject) -> list[Row]:
    """All rows; one alone where the image cannot be read."""
    try:
        table = read_table(subject.flash)
    except FirmwareError as error:
        if subject.flash.find(b"_FVH") < 0:
            return [unreadable(str(error))]
        sound = Row("table sound", Answer.NO, str(error), decides=True)
    else:
        sound = _sound(subject.flash, table)
    carried = _helper(subject)
    return [
        Row("readable", Answer.YES, f"{subject.kind}, firmware of {len(subject.flash):#x} bytes", decides=True),
        _whole(subject.flash),
        _core(subject),
        sound,
        carried,
        _room(subject, carried),
        *_launchable(subject),
        *_facts(subject),
    ]


def _whole(flash: bytes) -> Row:
    try:
        volumes = inventory(flash).volumes
    except FirmwareError as error:
        return Row("volumes whole", Answer.NO, str(error), decides=True)
    count = sum(len(volume.files) for volume in volumes)
    answer = Answer.YES if count else Answer.NO
    return Row("volumes whole", answer, f"volumes: {len(volumes)}, files: {count}", decides=True)


def _core(subject: Subject) -> Row:
    try:
        machine = subject.parts.core_machine
    except FirmwareError as error:
        return Row("DXE core is X64", Answer.NO, str(error), decides=True)
    answer = Answer.YES if machine == X64 else Answer.NO
    return Row("DXE core is X64", answer, machine_name(machine), decides=True)


def _sound(flash: bytes, table: Table) -> Row:
    found = [*filter(None, (finding(entry, flash) for entry in table.entries))]
    found += inspect_metadata(flash, table).findings
    if not found:
        return Row("table sound", Answer.YES, f"entries: {len(table.entries)}, no findings", decides=True)
    more = f"; and {len(found) - 1} more, see `ovmf table`" if len(found) > 1 else ""
    return Row("table sound", Answer.NO, found[0] + more, decides=True)


def _helper(subject: Subject) -> Row:
    """It decides where there is anything of a helper."""
    question = "helper whole"
    try:
        inside = {file.guid for file in subject.parts.driver_files().files}
    except FirmwareError as error:
        return Row(question, Answer.UNKNOWN, str(error), decides=True)
    try:
        found = subject.carried()
    except AbsentError as error:
        traces = _traces(subject.flash, inside)
        if traces is not None:
            return Row(question, Answer.NO, f"{traces}, but {error}", decides=True)
        return Row(question, Answer.NO, "none is inside", decides=False)
    except FirmwareError as error:
        return Row(question, Answer.NO, str(error), decides=True)
    if guids.IMAGE_FILE in inside and guids.LOADER_FILE not in inside:
        reason = f"no file {guids.LOADER_FILE} in {guids.DXEFV} (DXEFV): nothing loads the helper"
        return Row(question, Answer.NO, reason, decides=True)
    descriptor = parse_image(found.blob).descriptor
    scheme = name_of(descriptor.scheme, descriptor.window)
    end = found.entry.base + found.entry.memory_bytes - 1
    digest = hashlib.sha256(found.blob).hexdigest()
    return Row(question, Answer.YES, f"{scheme} at {found.entry.base:#x} to {end:#x}, SHA-256 {digest}", decides=True)


def _traces(flash: bytes, inside: set[UUID]) -> str | None:
    """What there is of a helper without its image."""
    if guids.LOADER_FILE in inside:
        return "a loader is there"
    try:
        entry = read_table(flash).find(guids.FIRMWARE_ENTRY)
    except FirmwareError:
        return None
    return None if entry is None else "the GUIDed table has an entry for it"


def _room(subject: Subject, helper: Row) -> Row:
    """It decides where no helper is inside, or where one has to fit."""
    question = "room for the helper"
    if helper.answer is Answer.YES and subject.helper is None:
        return Row(question, Answer.YES, "one is inside", decides=False)
    try:
        check_target(subject.flash)
        if subject.helper is None:
            return Row(question, Answer.UNKNOWN, f"{_free(subject.parts)}: --scheme says which", decides=False)
        blob = subject.helper()
        inject(subject.flash, blob)
    except FirmwareError as error:
        return Row(question, Answer.NO, str(error), decides=True)
    return Row(question, Answer.YES, f"{len(blob):#x} bytes and their loader fit", decides=True)


def _free(parts: Flash) -> str:
    drivers = parts.drivers.end - parts.driver_files().free
    compressed = parts.carrier_volume.end - parts.carrier.end
    return f"one of up to {drivers:#x} bytes that takes up to {compressed:#x} when compressed"


def _launchable(subject: Subject) -> Iterator[Row]:
    """A row for each kind of guest: that of --mode decides, without it all do where none is a yes."""
    rows = {mode: _launch(subject, mode) for mode in Mode}
    any_works = any(answer is Answer.YES for answer, _ in rows.values())
    for mode, (answer, reason) in rows.items():
        decides = not any_works if subject.mode is None else mode is subject.mode
        yield Row(f"launchable as {_MODES[mode]}", answer, reason, decides)


def _launch(subject: Subject, mode: Mode) -> tuple[Answer, str]:
    try:
        launch = subject.launch()
        result = digests_of(launch, (mode,))
        against = [*result.reasons.values(), *result.warnings]
        if isinstance(launch, FlashLaunch) and mode is not Mode.SEV:
            against += _against_reset(subject.flash)
    except FirmwareError as error:
        against = [str(error)]
    if against:
        return Answer.NO, against[0]
    return Answer.YES, "it has a launch digest, see `ovmf measure`"


def _against_reset(flash: bytes) -> list[str]:
    entry = read_table(flash).find(guids.SEV_ES_RESET)
    if entry is None or any(decode(entry, flash).values()):
        return []
    return ["SEV-ES reset vector is 0x0, which QEMU refuses"]


def _facts(subject: Subject) -> Iterator[Row]:
    """What decides nothing."""
    for question, ask in _FACTS.items():
        try:
            holds, reason = ask(subject)
        except FirmwareError as error:
            yield Row(question, Answer.UNKNOWN, str(error), decides=False)
        else:
            yield Row(question, Answer.YES if holds else Answer.NO, reason, decides=False)


def _secret_area(subject: Subject) -> tuple[bool, str]:
    return _place(subject.flash, guids.LAUNCH_SECRET)


def _hashes_area(subject: Subject) -> tuple[bool, str]:
    return _place(subject.flash, guids.KERNEL_HASHES)


def _place(flash: bytes, guid: UUID) -> tuple[bool, str]:
    entry = read_table(flash).find(guid)
    if entry is None:
        return False, "no entry in the GUIDed table"
    fields = decode(entry, flash)
    if not fields:
        raise FirmwareError(f"GUIDed table: entry at {entry.end:#x} has {len(entry.data(flash)):#x} bytes of data")
    where = f"at {fields['gpa']:#x}, {fields['size']:#x} bytes"
    return bool(fields["gpa"] and fields["size"]), where


def _variables(subject: Subject) -> tuple[bool, str]:
    stores = [volume for volume in find_volumes(subject.flash) if volume.first_file is None]
    return bool(stores), f"in the {stores[0].title}" if stores else "no volume of variables: give QEMU one"


def _smm(subject: Subject) -> tuple[bool, str]:
    needs = subject.parts.needs_smm
    return needs, "an SMM core is inside, and KVM has no SMM for SEV-ES guests" if needs else "no SMM core is inside"


def _debug(subject: Subject) -> tuple[bool, str]:
    parts = subject.parts
    cores = [file for file in parts.driver_files().files if file.kind == TYPE_DXE_CORE]
    if not cores:
        raise FirmwareError("no DXE core to look for messages in")
    found = parts.inner.find(_DEBUG_MESSAGE, cores[0].body, cores[0].end) >= 0
    return found, "a DEBUG build, which tells the host what it does" if found else "the DXE core has no such messages"


_FACTS: Mapping[str, Callable[[Subject], tuple[bool, str]]] = MappingProxyType(
    {
        "launch secret": _secret_area,
        "kernel hashes": _hashes_area,
        "variables included": _variables,
        "variables only by SMM": _smm,
        "debug messages": _debug,
    }
)
