"""Every column of a scheme whose helper is in the SNP guest itself, by its name in `mh_compare.columns`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from mh_builder.schemes.space import Start
from mh_compare.columns import Value, tables
from mh_compare.columns import ending as endings
from mh_compare.columns import launch as needs
from mh_compare.columns import moving as moves
from mh_compare.columns import pieces as places
from mh_compare.columns import reach as rights
from mh_compare.snp_columns import ending, host, launch, moving, pieces, reach, strict
from mh_compare.subject import SnpSubject

Measure = Callable[[SnpSubject], Value]

AS_ELSEWHERE: Mapping[str, Measure] = MappingProxyType(
    {
        **{column.name: column.measure for column in tables.COLUMNS},
        "mirror-writes": rights.from_mirror,
        "firmware-code": rights.firmware_code,
        "ram-room": rights.ram_room,
        "helper-memory": needs.helper_memory,
        "psp-commands": needs.psp_commands,
        "brought-by": places.brought_by,
        "start-32": places.start32,
        "downtime": endings.downtime,
    }
)
"""What is read off the image, or counted in the same way."""

OF_ITS_OWN: Mapping[str, Measure] = MappingProxyType(
    {
        "main-writes": reach.from_guest,
        "reserved": launch.reserved,
        "slots": launch.no_mirror,
        "kvm-calls": launch.no_mirror,
        "policy": launch.policies,
        "new-slots": host.new_slots,
        "missing-calls": host.missing_calls,
        "missing-memory": host.missing_memory,
        "hot-plug": host.hot_plug,
        "pieces": pieces.pieces,
        "exits": moving.exits,
        "never-mapped": moving.unplugged,
        "unplugged": moving.unplugged,
        "post-copy": moving.post_copy,
        "sev-es": partial(moves.other_start, start=Start.ES),
        "sev-snp": moving.under_snp,
        "upgrade": partial(moving.upgrade, change=moves.smaller),
        "upgrade-larger": partial(moving.upgrade, change=moves.larger),
        "upgrade-moved": partial(moving.upgrade, change=moves.elsewhere),
        "failed": ending.failed,
        "strict-finish": strict.strict_finish,
    }
)
"""What is measured in another way, because the guest is another one, or makes no sense here."""

UNDER_SNP: Mapping[str, Measure] = MappingProxyType({**AS_ELSEWHERE, **OF_ITS_OWN})
