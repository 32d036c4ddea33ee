"""Drives the assembly of one file: reads it, has it encoded, lays it out and writes the object."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mh_builder.asm import directives, encoder, opcodes, registers, verify
from mh_builder.asm.diagnostics import AssemblyError, Diagnostic, Line, Reporter, StatementError
from mh_builder.asm.emit import Emitter
from mh_builder.asm.expression import Cursor, Expression, Name
from mh_builder.asm.fragments import Bytes, Field, Fragment, SectionBuilder, signed, signed_or_unsigned
from mh_builder.asm.instruction import Candidate, Hole, Pending, parse_instruction
from mh_builder.asm.layout import SectionLayout
from mh_builder.asm.objectfile import SECTION_NAMES, ObjectFile, Symbol
from mh_builder.asm.operands import Memory, Operand, Register
from mh_builder.asm.prelude import Prelude, first_include
from mh_builder.asm.preprocess import Preprocessor
from mh_builder.asm.source import Source, load
from mh_builder.asm.symbols import Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mh_builder.asm.encoder import Encoding
    from mh_builder.asm.statement import Statement

_NO_SYMBOLS: Mapping[str, int | str] = {}


def assemble(path: Path, *, symbols: Mapping[str, int | str] = _NO_SYMBOLS, name: str | None = None) -> ObjectFile:
    """Assemble a file; `symbols` are predefined numbers and strings, `name` stands for the path in messages.

    Raises `AssemblyError` with every error of the file, also where it cannot be read.
    """
    shown = name or str(path)
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise AssemblyError((Diagnostic(Line(shown, 1, ""), 1, f"cannot read: {error.strerror}"),)) from error
    return assemble_text(text, shown, symbols=symbols, include_dir=path.parent)


def assemble_text(
    text: str, name: str, *, symbols: Mapping[str, int | str] = _NO_SYMBOLS, include_dir: Path | None = None
) -> ObjectFile:
    """Assemble source text; `.include` works only with `include_dir`. Raises `AssemblyError`."""
    encoder.shared.start()
    reporter = Reporter()
    source = load(text, name, include_dir, reporter)
    reporter.raise_if_any()
    parts = first_include(source)
    prelude = None if parts is None else _prelude(parts[0], symbols)
    if parts is not None and prelude is not None:
        # Where that fails, the lines of the include have to say who includes them.
        with suppress(AssemblyError):
            return _assembled(parts[1], prelude)
    return _assembled(source, Prelude.of(symbols))


def _assembled(source: Source, prelude: Prelude) -> ObjectFile:
    reporter = Reporter()
    unit = Assembly(prelude, reporter)
    unit.read(source)
    unit.encode()
    result = unit.finish(source.name)
    reporter.raise_if_any()
    return result


MAX_PRELUDES = 64
_PRELUDES: dict[tuple[object, ...], Prelude | None] = {}
"""By directory, as it is and as it is shown, include and symbols; None for what is more than names and macros."""


def _prelude(head: Source, symbols: Mapping[str, int | str]) -> Prelude | None:
    """What the first include of a file leaves; None where every file has to read it."""
    shown = PurePosixPath(head.name).parent
    key = (head.directory, shown, head.lines[-1].text, tuple(symbols.items()))
    known = _PRELUDES.get(key)
    if key not in _PRELUDES or (known is not None and not known.is_fresh()):
        if len(_PRELUDES) >= MAX_PRELUDES:
            _PRELUDES.clear()
        reporter = Reporter()
        unit = Assembly(Prelude.of(symbols), reporter)
        unit.read(head)
        known = _PRELUDES[key] = None if reporter.any else unit.prelude()
    return known


class Assembly:
    """One file on its way from statements to an object."""

    def __init__(self, prelude: Prelude, reporter: Reporter) -> None:
        """Begin in 64-bit mode and section .text."""
        self.table = prelude.table.copy()
        self.mode = 64
        self._reporter = reporter
        self._preprocessor = Preprocessor(self, reporter, prelude)
        self._sections = {".text": SectionBuilder(".text")}
        self._section = self._sections[".text"]
        self._pending: list[tuple[Bytes, Pending]] = []

    # ---- what directives need ----

    @property
    def section_name(self) -> str:
        """The current section."""
        return self._section.name

    def enter(self, name: str, column: int) -> None:
        """Make a section the current one."""
        if name not in SECTION_NAMES:
            raise StatementError(column, f"unknown section '{name}'; there are {', '.join(SECTION_NAMES)}")
        self._section = self._sections.setdefault(name, SectionBuilder(name))

    def raise_alignment(self, boundary: int) -> None:
        """Align the current section to `boundary` bytes at least."""
        self._section.align = max(self._section.align, boundary)

    def add(self, fragment: Fragment) -> None:
        """Append to the current section."""
        self._section.fragments.append(fragment)

    def lookup(self, name: Name) -> Expression:
        """Bind a name here."""
        return self.table.lookup(name, self._here())

    def _here(self) -> Place:
        return Place(self._section.name, len(self._section.fragments))

    # ---- what conditions need ----

    def constant(self, cursor: Cursor) -> int:
        """Read an expression that must be a number by now."""
        return directives.constant(self, cursor)

    def is_defined(self, name: str) -> bool:
        """Tell whether a name has been defined so far."""
        return self.table.is_defined(name)

    # ---- the three steps ----

    def read(self, source: Source) -> None:
        """Take in all statements."""
        for statement in self._preprocessor.statements(source):
            try:
                self._statement(statement)
            except StatementError as error:
                self._reporter.error(statement.line, error.column, error.message)
        for name, line, column in self.table.aliases.unused():
            self._reporter.error(line, column, f"'.reg {name}' is never used")

    def prelude(self) -> Prelude | None:
        """What has been read, if it was nothing but names and macros."""
        if self.table.aliases or self.table.labels or self.mode != 64 or list(self._sections) != [".text"]:
            return None
        if self._section.fragments or self._section.align != 1:
            return None
        read = self._preprocessor
        return Prelude(self.table, read.macros, read.serial, tuple(read.included))

    def _statement(self, statement: Statement) -> None:
        for label in statement.labels:
            try:
                self.table.define_label(label.name, label.column, self._here())
            except StatementError as error:
                self._reporter.error(statement.line, error.column, error.message)
        handler = directives.HANDLERS.get(statement.head)
        if handler:
            cursor = statement.cursor()
            handler(self, statement, cursor)
            cursor.expect_end()
        elif statement.head.startswith("."):
            raise StatementError(statement.column, f"unknown directive '{statement.head[:40]}'")
        elif statement.head:
            self._instruction(statement)

    def _instruction(self, statement: Statement) -> None:
        tokens = self.table.aliases.replaced(statement.tokens())
        parsed = parse_instruction(statement, Cursor(tokens), self.mode, self.lookup)
        if self.section_name != ".text":
            raise StatementError(statement.column, f"instruction in section {self.section_name}")
        if isinstance(parsed, Pending):
            fragment = Bytes(statement.line, b"")
            self._pending.append((fragment, parsed))
            self.add(fragment)
        else:
            self.add(parsed)

    def encode(self) -> None:
        """Have the instructions encoded that the assembler does not encode itself."""
        requests = [candidate.request for _, pending in self._pending for candidate in pending.candidates]
        answers = encoder.shared.encode(requests)
        for fragment, pending in self._pending:
            problem = ""
            for candidate in pending.candidates:
                encoding = answers[candidate.request]
                problem = verify.complaint(pending, candidate, encoding)
                if not problem:
                    fragment.data = opcodes.prefixed(pending.prefix, encoding.code)
                    fragment.fields = self._fields(pending, candidate, encoding)
                    break
            if problem:
                self._reporter.error(pending.line, pending.column, problem)

    def _fields(self, pending: Pending, candidate: Candidate, encoding: Encoding) -> tuple[Field, ...]:
        try:
            return tuple(_field(pending, candidate, hole, encoding) for hole in candidate.holes)
        except StatementError as error:
            self._reporter.error(pending.line, error.column, error.message)
            return ()

    def finish(self, name: str) -> ObjectFile:
        """Lay out and write everything."""
        order = [self._sections[section] for section in SECTION_NAMES if section in self._sections]
        layout = SectionLayout(order, self.table, self._reporter)
        emitter = Emitter(layout, self._reporter)
        sections = tuple(emitter.section(section) for section in order)
        used = dict.fromkeys(item.symbol for section in sections for item in section.relocations)
        symbols = self._symbols(layout, used)
        undefined = tuple(symbol for symbol in used if symbol not in self.table.labels)
        return ObjectFile(name, sections, symbols, undefined, frozenset(self.table.asked))

    def _symbols(self, layout: SectionLayout, used: Mapping[str, None]) -> tuple[Symbol, ...]:
        symbols = [
            Symbol(name, place.section, layout.addresses[place.section][place.fragment], name in self.table.globals)
            for name, place in self.table.labels.items()
            if "@" not in name or name in used
        ]
        resolver = layout.resolver()
        for name, mention in self.table.globals.items():
            if name in self.table.labels:
                continue
            try:
                value = resolver.number(Name(name, mention.column), mention.column)
            except StatementError as error:
                self._reporter.error(mention.line, error.column, error.message)
            else:
                symbols.append(Symbol(name, None, value, is_global=True))
        return tuple(symbols)


def _field(pending: Pending, candidate: Candidate, hole: Hole, encoding: Encoding) -> Field:
    decoded, width = encoding.decoded[0], hole.width
    # capstone's own size of a displacement is 2 wherever the instruction has a 66 prefix.
    offset = decoded.displacement_offset if hole.in_memory else decoded.immediate_offset
    found = encoding.code[offset : offset + width]
    if found != hole.placeholder.to_bytes(width, "little"):
        raise StatementError(hole.column, "this value must be known before the layout")
    tail = len(encoding.code) - offset - width
    is_extended = width == 4 and any(_is_quad(operand) for operand in candidate.operands)
    low, high = signed(width) if hole.in_memory or is_extended else signed_or_unsigned(width)
    return Field(len(pending.prefix) + offset, width, hole.kind, hole.value, hole.column, low, high, tail)


def _is_quad(operand: Operand) -> bool:
    match operand:
        case Register(name):
            return name in registers.QUAD
        case Memory(size):
            return size == 64
        case _:
            return False
