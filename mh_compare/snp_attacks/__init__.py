"""Every attack on an SNP guest, whose helper is in the guest itself, by its name in `mh_compare.attacks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_compare.attacks import (
    events,
    memory,
    oracles,
    peers,
    randomness,
    registers,
    requests,
    secrecy,
    stream,
)
from mh_compare.attacks import mapping as slots
from mh_compare.outcome import Outcome
from mh_compare.snp_arena import SnpArena
from mh_compare.snp_attacks import guest, launch, mapping, mirrors, moved, pairs, shown
from mh_compare.snp_attacks.case import by_case
from mh_compare.snp_attacks.moved import for_good

Run = Callable[[SnpArena], Outcome]

AS_ELSEWHERE: Mapping[str, Run] = MappingProxyType(
    {
        "host-reads-guest": memory.read_guest,
        "host-reads-helper": memory.read_helper,
        "host-reads-stream": memory.read_stream,
        "host-flips-guest": memory.flip_guest,
        "host-flips-code": memory.flip_code,
        "host-flips-tables": memory.flip_tables,
        "host-moves-guest": memory.move_guest,
        "host-moves-helper": memory.move_helper,
        "host-moves-chosen": memory.move_chosen,
        "host-replays-guest": memory.replay_guest,
        "host-replays-helper": memory.replay_helper,
        "host-compares-ciphertext": memory.compare_ciphertext,
        "host-compares-ciphertext-turin": memory.compare_ciphertext,
        "host-copies-ciphertext": memory.copy_to_target,
        "host-guesses-page": oracles.guess,
        "host-sees-equal-blocks": oracles.see_equal,
        "host-wipes-key": oracles.wipe_key,
        "host-halves-key": oracles.halve_key,
        "host-reads-registers": registers.read,
        "host-sets-registers": registers.start_anywhere,
        "host-restarts-helper": registers.start_again,
        "host-injects-events": events.inject,
        "host-injects-at-rest": events.inject_at_rest,
        "host-leaves-out-ram": slots.leave_out,
        "host-exports-helper": requests.export_helper,
        "host-imports-over-helper": requests.import_over_helper,
        "host-exports-twice": requests.twice,
        "host-changes-request": requests.change_after_check,
        "host-imports-at-source": requests.forbidden_order,
        "host-overruns-ring": requests.overrun_ring,
        "host-plays-target": peers.foreign_target,
        "host-edits-hello": peers.edit_hello,
        "host-replays-hello": peers.replay_hello,
        "host-reflects-hello": peers.reflect_hello,
        "tenant-joins-host": peers.tenant,
        "host-replays-packet": stream.replay,
        "host-replays-epoch": stream.replay_epoch,
        "host-replays-stream": stream.replay_stream,
        "host-relabels-session": stream.relabel_session,
        "host-reorders": stream.reorder,
        "host-renumbers": stream.renumber,
        "host-relocates": stream.relocate,
        "host-readdresses": stream.readdress,
        "host-tampers": stream.tamper,
        "host-forges-until-lucky": stream.forge_again,
        "host-mixes": stream.mix,
        "host-sticks-rdrand": randomness.stick,
    }
)
"""What needs no mirror, and is the same here."""

OF_ITS_OWN: Mapping[str, Run] = MappingProxyType(
    {
        "guest-overwrites-helper": guest.overwrite_code,
        "guest-reads-key": guest.read_key,
        "guest-reads-session": guest.read_session,
        "guest-calls-helper": guest.call,
        "guest-posts-request": guest.post_request,
        "guest-takes-rights": guest.take_rights,
        "guest-lies-in-tuples": guest.lie_in_tuples,
        "host-moves-chosen-naples": shown.no_snp,
        "host-chooses-plaintext": shown.choose,
        "host-swaps-pages": mapping.swap_guest_pages,
        "host-replaces-helper": mapping.replace_helper,
        "host-aliases-secret": mapping.export_helper,
        "host-aliases-code": mapping.import_over_helper,
        "host-validates-twice": by_case("vcpu-validate-again"),
        "host-validates-remapped": mapping.validate_remapped,
        "host-mixes-schemes": pairs.mix_schemes,
        "host-downgrades-peer": pairs.downgrade,
        "tenant-uses-key": pairs.tenant_kernel,
        "host-drops": for_good(stream.drop),
        "host-clones-guest": moved.keep_running,
        "host-moves-again": moved.move_again,
        "host-reads-recorded-stream": for_good(secrecy.read_recorded),
        "host-rolls-back-post-copy": moved.roll_back,
        "host-never-resumes": moved.never_resume,
        "host-relaunches-rdrand": launch.relaunch,
        "host-changes-helper": launch.change_helper,
        "host-changes-policy": launch.change_policy,
        "host-loads-elsewhere": launch.load_elsewhere,
        "host-repeats-secret": launch.repeat_secret,
        "host-forges-report": by_case("attest-forged"),
        "host-debugs": by_case("debug-without-policy"),
        "host-debugs-debuggable": by_case("debug"),
        "host-shares-key": by_case("activate-owned-asid"),
        "host-shares-shareable-key": by_case("activate-owned-asid"),
        "host-sends-guest": by_case("launch-agent-without-policy"),
        "host-sends-sendable-guest": by_case("export-by-agent"),
        "host-uses-stale-context": by_case("stale-context"),
        "host-replays-swap": by_case("swap-replay"),
        "host-downgrades-firmware": by_case("tcb-downgrade"),
        "host-launches-into-mirror": mirrors.launch_into_mirror,
        "host-launches-late": mirrors.launch_late,
        "host-mirrors-mirror": mirrors.mirror_of_mirror,
        "host-second-mirror": mirrors.second_mirror,
    }
)
"""What is another thing here, needs no helper, or ends the guest at the source: in an arena of its own."""

UNDER_SNP: Mapping[str, Run] = MappingProxyType({**AS_ELSEWHERE, **OF_ITS_OWN})
