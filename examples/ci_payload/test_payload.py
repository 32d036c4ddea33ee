"""What a changed payload must still do. `mh_pair` is a fixture of the package sev-migration-helper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mh_emulator import Pair


def test_a_page_arrives(mh_pair: Pair) -> None:
    page = mh_pair.pages[0]
    status, sealed = mh_pair.source.export(page)
    assert status.name == "MH_DONE"
    assert mh_pair.target.take(page, sealed).name == "MH_DONE"
    assert mh_pair.target.guest_sees(page) == mh_pair.source.guest_sees(page)


def test_hosts_see_nothing_of_it(mh_pair: Pair) -> None:
    page = mh_pair.pages[0]
    _, sealed = mh_pair.source.export(page)
    mh_pair.target.take(page, sealed)
    seen = [sealed.data, mh_pair.source.host_sees(page), mh_pair.target.host_sees(page)]
    assert mh_pair.source.guest_sees(page) not in seen


def test_a_changed_page_is_refused(mh_pair: Pair) -> None:
    page = mh_pair.pages[0]
    _, sealed = mh_pair.source.export(page)
    changed = replace(sealed, data=bytes([sealed.data[0] ^ 1]) + sealed.data[1:])
    before = mh_pair.target.guest_sees(page)
    assert mh_pair.target.take(page, changed).name == "MH_BAD_TAG"
    assert mh_pair.target.guest_sees(page) == before


def test_a_page_outside_of_ram_is_refused(mh_pair: Pair) -> None:
    assert mh_pair.source.export(1 << 50)[0].name == "MH_OUT_OF_RANGE"
