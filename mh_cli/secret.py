"""`secret`: a fresh transport record for one guest, as the table that the owner wraps for LAUNCH_SECRET.

The same file goes to the guest's source and to its target, and to no other guest.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from uuid import UUID

from mh_abi import abi
from mh_cli.errors import GOOD, UsageError
from mh_emulator.secret import Secret

_PROTECTIONS = {
    "sev": abi.mh_protection.MH_PROTECTION_SEV,
    "es": abi.mh_protection.MH_PROTECTION_SEV_ES,
    "snp": abi.mh_protection.MH_PROTECTION_SEV_SNP,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="a new file, for its owner only"
    )
    parser.add_argument("--guest", type=_identity, metavar="UUID", help="the guest's identity (default: a random one)")
    parser.add_argument(
        "--peer", choices=list(_PROTECTIONS), default="sev", help="the least protection of the other side (default sev)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="ask for a strict finish: the source needs an image built with --strict"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and say whose it is; never over another one: with it would go a guest's only key."""
    flags = abi.MH_OWNER_STRICT if arguments.strict else 0
    secret = Secret.fresh(int(_PROTECTIONS[arguments.peer]), flags, arguments.guest)
    try:
        handle = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{arguments.output}: exists, and is not replaced: it may hold a guest's only key") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secret.table())
    except OSError as error:
        arguments.output.unlink()
        raise OSError(error.errno, error.strerror, str(arguments.output)) from error
    print(f"{arguments.output}: guest {UUID(bytes=secret.guest)}, peer at least {arguments.peer}"
          f"{', strict finish' if arguments.strict else ''}")  # fmt: skip
    return GOOD


def _identity(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID") from None
