"""`ovmf wrap`: a flash image as an IGVM file, which is launched to the digests of the flash image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mh_builder.firmware.digests import Mode, digests_of
from mh_builder.firmware.metadata import inspect_metadata
from mh_builder.firmware.table import read_table
from mh_builder.igvm.launch import IgvmLaunch
from mh_builder.igvm.read import read_igvm
from mh_builder.igvm.wrap import wrap
from mh_cli import options
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, check_output, read_image, write_file
from mh_cli.ovmf_launch import add_snp_features, add_vcpus, as_json, say_why_not, vcpus_of, vmsas_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image of OVMF")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the IGVM file")
    add_vcpus(parser)
    add_snp_features(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Wrap, write, and print what the file will measure."""
    check_output(arguments.output, arguments.image, *arguments.vmsa)
    image = read_image(arguments.image)
    if image.igvm is not None:
        raise UsageError(f"{arguments.image} is an IGVM file already")
    vcpus = vcpus_of(arguments)
    vmsas = vmsas_of(arguments)
    with about(arguments.image):
        data = wrap(image.data, vcpus)
        result = digests_of(IgvmLaunch(read_igvm(data), vmsas), Mode)
        findings = inspect_metadata(image.data, read_table(image.data)).findings
    write_file(arguments.output, data)
    for line in findings:
        print(f"{arguments.image}: warning: {line}", file=sys.stderr)
    say_why_not(arguments.output, result)
    if arguments.json:
        print_json("ovmf-wrap/1", {"bytes": len(data), "vcpus": vcpus.count} | as_json(result))
        return GOOD
    print(f"{arguments.output}: {len(data):#x} bytes, vCPUs: {vcpus.count}")
    for mode, digest in result.digests.items():
        print(f"{mode.value:6} {digest.hex()}")
    return GOOD
