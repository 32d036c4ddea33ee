"""The tests of single fetches see a second one wherever the helper reads shared bytes, and one of its own output."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

from emulator_tests.helper import rings
from emulator_tests.helper import test_single_fetch as fetch
from emulator_tests.helper.conftest import Op, Pair, pair_of
from emulator_tests.mutation.plant import behind
from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.schemes.space import Options

CONTROL = [Op.MH_OP_ABORT, Op.MH_OP_FINISH, Op.MH_OP_HELLO, Op.MH_OP_START, 99]

OPERATIONS: dict[str, Callable[[Pair], None]] = {
    **{f"control-{op}": partial(fetch.test_control_operations_read_their_submission_once, op=op) for op in CONTROL},
    "resume": partial(fetch.test_other_operations_read_their_submission_once, op=Op.MH_OP_RESUME),
    "share-run": partial(fetch.test_run_of_shared_pages, flags=0),
    "unshare-run": partial(fetch.test_run_of_shared_pages, flags=abi.MH_BATCH_PRIVATE),
    "share-list": fetch.test_list_of_shared_pages_is_read_once,
    "hello": fetch.test_our_hello_is_written_once_and_not_read,
    "start": partial(fetch.test_start_reads_the_peers_hello_once, position=None),
    "start-refused": partial(fetch.test_start_reads_the_peers_hello_once, position=127),
    "export": fetch.test_export_writes_each_byte_once_and_reads_none_of_it,
    "export-list": fetch.test_list_entries_are_read_once,
    "export-urgent-list": fetch.test_urgent_export_reads_no_more_than_it_is_asked,
    "import": fetch.test_import_reads_each_byte_once,
    "import-chunk": fetch.test_chunk_is_read_once,
    "import-chunks": fetch.test_several_chunks_are_read_once,
    "import-urgent": fetch.test_urgent_import_reads_each_byte_once,
    "import-list": partial(fetch.test_imported_list_is_read_once, urgent=False),
    "import-urgent-list": partial(fetch.test_imported_list_is_read_once, urgent=True),
    "import-zeros": fetch.test_zeros_are_read_once,
    "import-refused": partial(fetch.test_refused_import_reads_nothing_twice, spoil="tag"),
    "vmsa": fetch.test_vmsas,
    "epoch": partial(fetch.test_an_end_packet_is_read_once, op=Op.MH_OP_EPOCH, field=None),
    "finish": partial(fetch.test_an_end_packet_is_read_once, op=Op.MH_OP_FINISH, field=None),
}
IMPORTS = {name for name in OPERATIONS if name.startswith("import")} | {"vmsa"}
LISTS = {name for name in OPERATIONS if name.endswith("list")}
ALONE = {name for name in OPERATIONS if name.startswith("control")} | {"resume", "share-run", "unshare-run", "hello"}
"""They read nothing but their submission."""

PACKET = "    mov r10, [r13 + lane.slot_packet]\n"
PLANTED: dict[str, tuple[str, str, str, set[str]]] = {
    "submission": (
        "ring.s",
        "    mov r8, [rsi + mh_submission.address]",
        "    mov r8, [rsi + mh_submission.address]",
        ALONE,
    ),
    "header": (
        "packet.s",
        "    mov eax, [rsi + mh_packet.length]",
        "    mov eax, [rsi + mh_packet.length]",
        {"import", "import-list", "import-refused", "epoch"},
    ),
    "turn": (
        "packet.s",
        "    mov rax, [rsi + mh_packet.sequence]",
        "    mov rax, [rsi + mh_packet.sequence]",
        {"import", "import-urgent", "finish"},
    ),
    "address": (
        "batch.s",
        "    mov rax, [rsi + mh_packet.address]",
        "    mov rax, [rsi + mh_packet.address]",
        {"import", "import-chunks"},
    ),
    "tag": (
        "packet.s",
        "    call gcm_open",
        f"{PACKET}    movzx r10d, byte ptr [r10 + mh_packet.tag]",
        IMPORTS | {"epoch", "finish"},
    ),
    "data": (
        "packet.s",
        "    call gcm_open",
        "    mov r10, [r13 + lane.slot_data]\n    movzx r10d, byte ptr [r10]",
        IMPORTS - {"import-zeros"},
    ),
    "list": (
        "batch.s",
        "    mov rax, [rax + rbp * 8]",
        "    mov r10, [r13 + lane.list]\n    mov r10, [r10 + rbp * 8]",
        LISTS,
    ),
    "peer's hello": (
        "hello.s",
        "    call settle",
        f"{PACKET}    movzx r10d, byte ptr [r10 + mh_hello.nonce]",
        {"start", "start-refused"},
    ),
    "own packet": (
        "packet.s",
        "    call copy64",
        f"{PACKET}    movzx r10d, byte ptr [r10]",
        {"export", "export-list", "export-urgent-list", "vmsa"},
    ),
    "own data": (
        "packet.s",
        "    call gcm_seal",
        "    mov r10, [r13 + lane.slot_data]\n    movzx r10d, byte ptr [r10]",
        {"export", "export-list", "export-urgent-list", "vmsa"},
    ),
}
"""What is read again: behind which line of which source, by what, and the operations that then do."""


@cache
def image(what: str) -> Image:
    """The helper with that second read."""
    source, line, more, _ = PLANTED[what]
    with behind(f"payload/{source}", line, more):
        return build_helper("regions", Options())


def test_every_operation_has_a_second_read_of_its_own() -> None:
    covered = set().union(*(finds for what, (_, _, _, finds) in PLANTED.items() if what != "submission"))
    alone = {name for name in OPERATIONS if name.startswith("control")} | {
        "resume",
        "share-run",
        "unshare-run",
        "hello",
    }
    assert covered == set(OPERATIONS) - alone


@pytest.mark.parametrize(
    ("what", "operation"), [(what, name) for what, (_, _, _, finds) in PLANTED.items() for name in sorted(finds)]
)
def test_a_second_read_is_found(what: str, operation: str) -> None:
    pair = pair_of(image(what))
    with pytest.raises(AssertionError) as caught:
        OPERATIONS[operation](pair)
    assert caught.traceback[-1].name == fetch.check.__name__


def test_a_second_read_of_join_is_found() -> None:
    source, line, more, _ = PLANTED["submission"]
    rings.image_of.cache_clear()
    with behind(f"payload/{source}", line, more), pytest.raises(AssertionError):
        fetch.test_join_reads_its_submission_once(1)
    rings.image_of.cache_clear()
