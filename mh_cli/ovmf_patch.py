"""`ovmf patch`: the helper into an edk2 tree, to be built with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.edk2.driver import FLAG, HOME, check_place, driver_files
from mh_builder.edk2.series import all_releases
from mh_builder.edk2.tree import State, Tree, read_tree
from mh_builder.helper import build_helper
from mh_builder.image.output import write_files
from mh_builder.schemes import SCHEMES
from mh_cli import options
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json

_SAID = {
    State.RELEASE: "the series applies",
    State.MODIFIED: "changed since the release, the series applies all the same",
    State.APPLIED: "the series is applied already",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.epilog = f"A tree that is patched already gets the new helper. Build it with -D {FLAG}."
    parser.add_argument("--edk2", type=Path, metavar="DIR", help="top of the tree")
    # One, and not all schemes by default: a tree holds one helper.
    parser.add_argument("--scheme", choices=list(SCHEMES), metavar="SCHEME", help="of the helper")
    parser.add_argument("--list", action="store_true", help="say which series applies to which release, and stop")
    parser.add_argument("--check", action="store_true", help="say what would be done, and write nothing")
    options.add_layout(parser)
    options.add_helper_vcpus(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then write all files or none, and say what was written; or list what there is."""
    if arguments.list:
        return _list(arguments)
    for name in ("edk2", "scheme"):
        if getattr(arguments, name) is None:
            raise UsageError(f"--{name} is missing: say which tree, and which helper, or --list")
    image = build_helper(arguments.scheme, options.layout(arguments)).data
    driver = driver_files(image)
    tree = read_tree(arguments.edk2)
    check_place(arguments.edk2)
    files = tree.patched | driver
    if not arguments.check:
        write_files(files, arguments.edk2)
    if arguments.json:
        print_json("ovmf-patch/1", _result(arguments, tree, sorted(files)))
        return GOOD
    made_for = tree.series.made_for
    by = "" if made_for == tree.series.release else f", that of {made_for}"
    print(f"{arguments.edk2}: {tree.series.release}: {_SAID[tree.state]}{by}")
    for path in files:
        print(arguments.edk2 / path)
    return GOOD


def _list(arguments: argparse.Namespace) -> int:
    releases = all_releases()
    if arguments.json:
        rows = [
            {"release": one.release, "series": one.made_for, "files": {item.path: item.before for item in one.changes}}
            for one in releases
        ]
        print_json("ovmf-patch-list/1", {"releases": rows})
        return GOOD
    for one in releases:
        print(f"{one.release:20} series {one.made_for}")
    return GOOD


def _result(arguments: argparse.Namespace, tree: Tree, files: list[str]) -> dict[str, object]:
    return {
        "release": tree.series.release,
        "series": tree.series.made_for,
        "state": tree.state.value,
        "written": not arguments.check,
        "scheme": arguments.scheme,
        "define": FLAG,
        "driver": HOME,
        "files": files,
    }
