"""The address-space schemes, one a file; `EVERY_SCHEME` lists them by the name that users type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mh_builder.schemes import alias_gpa, alias_window, isolated, regions, vmpl
from mh_builder.schemes.space import Scheme, Start

_MIRRORS = (alias_gpa.SCHEME, alias_window.AT_4G, alias_window.HIGH, regions.SCHEME, isolated.SCHEME)
_ALL = (*_MIRRORS, vmpl.SCHEME)

SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _MIRRORS})
"""Those whose helper runs in a mirror."""
EVERY_SCHEME: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _ALL})


def starting(start: Start) -> list[str]:
    """The names of the schemes that have this start."""
    return [scheme.name for scheme in _ALL if start in scheme.starts]


def name_of(number: int, window: int) -> str:
    """What users call the scheme of that number (enum mh_scheme) whose window is at that mirror GPA."""
    names = [scheme.name for scheme in _ALL if scheme.number == number and scheme.window in (None, window)]
    return names[0] if names else f"scheme {number}"
