"""Verbs that are imported when they are chosen."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any


class VerbParser(argparse.ArgumentParser):
    """The parser of one verb. Its module says what the verb takes, and is imported when the verb is parsed."""

    def __init__(self, *, module: str, **settings: Any) -> None:  # noqa: ANN401 - as argparse passes them on
        super().__init__(**settings)
        self._module: str | None = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - typeshed's overloads
        """Ask the module for its arguments, then parse. Raises `ModuleNotFoundError`."""
        if self._module is not None:
            module = importlib.import_module(self._module)
            self._module = None
            self.description = module.__doc__
            module.add_arguments(self)
        return super().parse_known_args(args, namespace)


def add_verbs(parser: argparse.ArgumentParser, verbs: Mapping[str, str], *, prefix: str, required: bool) -> None:
    """Add verbs (name -> one line of help), each of the module `prefix` + name, which has `add_arguments(parser)`."""
    below = parser.add_subparsers(title="verbs", metavar="VERB", required=required, parser_class=VerbParser)
    for name, help_text in verbs.items():
        below.add_parser(name, help=help_text, module=prefix + name)
