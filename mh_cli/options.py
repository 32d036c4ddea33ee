"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mh_abi import abi
from mh_builder.parts import PARTS
from mh_builder.schemes import EVERY_SCHEME, starting
from mh_builder.schemes.space import DEFAULT_HOME, DEFAULT_RAM_LIMIT, Options, Start
from mh_cli.errors import UsageError

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}

OUT = Path("out")


def size(text: str) -> int:
    """A number of bytes: decimal, 0x, or with a suffix K, M, G, T."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _UNITS else (text, "")
    try:
        value = int(digits, 0) << _UNITS.get(unit, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of bytes (examples: 4096, 0x4000000, 64M)"
        ) from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return value


def bit(text: str) -> int:
    """The number of a bit: decimal or 0x."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a bit (examples: 51, 0x33)") from None


def policy(text: str) -> int:
    """A guest policy of SEV: 32 bits."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a guest policy of 32 bits (examples: 15, 0xf)")
    return value


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Options that change the address space."""
    group = parser.add_argument_group("address space")
    group.add_argument(
        "--home", type=size, default=DEFAULT_HOME, metavar="GPA",
        help=f"main GPA that the firmware reserves for the helper (default {DEFAULT_HOME:#x})",
    )  # fmt: skip
    group.add_argument("--base", type=size, metavar="GPA", help="mirror GPA of the helper (default: the scheme's own)")
    group.add_argument(
        "--ram-limit", type=size, default=DEFAULT_RAM_LIMIT, metavar="BYTES",
        help=f"requests name addresses below this, up to 4T (default {DEFAULT_RAM_LIMIT >> 30}G)",
    )  # fmt: skip
    group.add_argument(
        "--start", choices=[start.value for start in Start], default=Start.HOST.value,
        help="who sets the registers: the host, or SEV-ES or SNP with a VMSA, which is written where --c-bit says the "
        "C-bit (default host)",
    )  # fmt: skip
    group.add_argument(
        "--largest-page", type=size, metavar="BYTES", help="of the page tables: 2M or 1G (default: what the part has)"
    )
    group.add_argument(
        "--strict", action="store_true",
        help="room for a strict finish, which proves that no page changed after its export: RAM limit / 128",
    )  # fmt: skip
    group.add_argument("--c-bit", type=bit, metavar="BIT", help="fix the C-bit (default: the loader sets it)")


def add_helper_vcpus(parser: argparse.ArgumentParser, name: str = "--vcpus") -> None:
    """How many vCPUs the helper has; another `name` where the main VM's are counted as well."""
    parser.add_argument(
        name, dest="helper_vcpus", type=int, default=1, metavar="N",
        help=f"vCPUs of the helper that may work at once, each with a ring, up to {abi.MH_MAX_RINGS} (default 1)",
    )  # fmt: skip


def add_part(parser: argparse.ArgumentParser) -> None:
    """The processor: C-bit, physical address width, where the high window starts."""
    parser.add_argument(
        "--part", choices=sorted(PARTS), default="milan", action=_Named, help="processor (default milan)"
    )  # fmt: skip
    parser.set_defaults(part_named=False)


class _Named(argparse.Action):
    """Stores a value, and in NAME_named that it was given."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        setattr(namespace, self.dest, values)
        setattr(namespace, f"{self.dest}_named", True)


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Machine-readable result."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose one."""
    if not text.isascii() or not text.isdigit() or int(text) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def add_started_scheme(parser: argparse.ArgumentParser) -> None:
    """One scheme, or all that have the start."""
    parser.add_argument(
        "--scheme", choices=list(EVERY_SCHEME), metavar="SCHEME", help="one scheme (default: all that have the start)"
    )


def owner_key(text: str) -> bytes:
    """An X25519 key in hexadecimal digits."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != abi.MH_OWNER_KEY_BYTES or len(text) != 2 * len(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a key of {2 * abi.MH_OWNER_KEY_BYTES} hexadecimal digits")
    return value


def layout(arguments: argparse.Namespace, owner: bytes = b"") -> Options:
    """What `add_layout`, `add_helper_vcpus` and `add_part` read; `owner` is who has the guest, with start snp."""
    part = PARTS[arguments.part]
    if arguments.part_named and arguments.c_bit not in (None, part.c_bit):
        raise UsageError(f"--c-bit {arguments.c_bit} contradicts --part {part.name}, which has C-bit {part.c_bit}")
    known = Options.for_part(part)
    return replace(
        known,
        home=arguments.home,
        ram_limit=arguments.ram_limit,
        base=arguments.base,
        c_bit=arguments.c_bit,
        vcpus=arguments.helper_vcpus,
        start=Start(arguments.start),
        strict=arguments.strict,
        owner=owner,
        largest_page=known.largest_page if arguments.largest_page is None else arguments.largest_page,
    )


def started_schemes(arguments: argparse.Namespace) -> list[str]:
    """The schemes that the arguments ask for, of those that have the start."""
    return starting(Start(arguments.start)) if arguments.scheme is None else [arguments.scheme]
