"""pytest fixtures for tests of a migration helper: `mh_image`, and `mh_pair`, two connected guests.

Which helper: the option `--mh-payload` or the setting `mh_payload` name a folder of sources, a copy of `payload/` with
changes, or the file of a flat image; without one it is this project's own. Nothing is imported before a test asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mh_abi.image import HelperImage
    from mh_emulator.pair import Pair

_SETTINGS = {
    "payload": ("", "folder of sources or flat image that is tested (default: the project's own)"),
    "scheme": ("regions", "address-space scheme of an image that is built from sources (default: regions)"),
    "part": ("milan", "processor of both platforms (default: milan)"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each setting in the configuration file, and an option before it."""
    group = parser.getgroup("migration helper")
    for name, (default, help_text) in _SETTINGS.items():
        parser.addini(f"mh_{name}", help_text, default=default)
        group.addoption(f"--mh-{name}", metavar=name.upper(), help=help_text)


@pytest.fixture(scope="session")
def mh_image(pytestconfig: pytest.Config) -> HelperImage:
    """The helper that is tested. What is wrong with its sources or its bytes is the error of the fixture."""
    from mh_abi.image import parse_image  # noqa: PLC0415 - a suite that does not use the plugin does not pay for it
    from mh_abi.sources import PAYLOAD  # noqa: PLC0415
    from mh_builder.helper import build_helper  # noqa: PLC0415
    from mh_builder.parts import PARTS  # noqa: PLC0415
    from mh_builder.schemes.space import Options  # noqa: PLC0415

    named = _setting(pytestconfig, "payload")
    path = pytestconfig.rootpath / named if named else PAYLOAD
    if path.is_file():
        return parse_image(path.read_bytes())
    options = Options.for_part(PARTS[_setting(pytestconfig, "part")])
    return parse_image(build_helper(_setting(pytestconfig, "scheme"), options, path).data)


@pytest.fixture
def mh_pair(mh_image: HelperImage, pytestconfig: pytest.Config) -> Pair:
    """Source and target, launched with the helper that is tested, in a session."""
    from mh_builder.parts import PARTS  # noqa: PLC0415
    from mh_emulator.pair import connected_pair  # noqa: PLC0415

    return connected_pair(mh_image, PARTS[_setting(pytestconfig, "part")])


def _setting(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"mh_{name}")
    return str(config.getini(f"mh_{name}") if given is None else given)
