"""Places in the source and the errors reported at them."""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi.errors import DiagnosticsError


@dataclass(frozen=True, slots=True)
class Line:
    """One line of source without its comments, as macros and loops left it.

    `origin` is the line that made this one appear (a macro's use, an `.include`) and `reason` says how.
    """

    file: str
    number: int
    text: str
    origin: Line | None = None
    reason: str = ""

    @property
    def root(self) -> Line:
        """The line of the assembled file that made this one appear."""
        return self.origin.root if self.origin else self

    @property
    def place(self) -> str:
        """The line's "file:line", followed by those of the macro uses that led to it."""
        outer = f" from {self.origin.place}" if self.origin else ""
        return f"{self.file}:{self.number}{outer}"


_NOTES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """An error at a column, counted from 1, of a line."""

    line: Line
    column: int
    message: str

    def __str__(self) -> str:
        """Give the error, its source line, a caret and the uses that led there; of many only both ends."""
        shown = self.line.text.replace("\t", " ").rstrip()
        parts = [f"{self.line.file}:{self.line.number}:{self.column}: error: {self.message}"]
        if shown:
            parts += [f"    {shown}", f"    {' ' * (self.column - 1)}^"]
        notes = []
        line = self.line
        while line.origin:
            notes.append(f"{line.origin.file}:{line.origin.number}: note: {line.reason} here")
            line = line.origin
        if len(notes) > _NOTES_SHOWN:
            half = _NOTES_SHOWN // 2
            notes[half:-half] = [f"{self.line.file}: note: {len(notes) - 2 * half} more between these"]
        return "\n".join([*parts, *notes])


class AssemblyError(DiagnosticsError):
    """The source has errors: all of them, in the order of the lines of the file that was assembled."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Keep the diagnostics; there is at least one."""
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = diagnostics


class StatementError(Exception):
    """What is wrong at a column of the statement in hand; whoever knows the line makes it a `Diagnostic`."""

    def __init__(self, column: int, message: str) -> None:
        """Keep the column, counted from 1, and a message of one line."""
        super().__init__(message)
        self.column = column
        self.message = message


class Reporter:
    """Collects diagnostics, up to a limit that keeps a runaway macro readable."""

    LIMIT = 200

    def __init__(self) -> None:
        """Begin without errors."""
        self._diagnostics: dict[Diagnostic, None] = {}

    def error(self, line: Line, column: int, message: str) -> None:
        """Record an error once."""
        if len(self._diagnostics) < self.LIMIT:
            self._diagnostics[Diagnostic(line, column, message)] = None

    @property
    def any(self) -> bool:
        """Whether there is an error."""
        return bool(self._diagnostics)

    def raise_if_any(self) -> None:
        """Raise `AssemblyError` with all that was recorded."""
        if self._diagnostics:
            raise AssemblyError(tuple(sorted(self._diagnostics, key=lambda item: item.line.root.number)))
