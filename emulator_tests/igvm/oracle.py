"""A second reader and writer of IGVM files, in few lines, from the structures of the crate `igvm_defs`.

It shares nothing with the project's own; and a second computation of launch digests, from the SEV-SNP firmware ABI.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, field

PAGE = 4096
SEV_SNP, SEV, SEV_ES = 2, 4, 5


@dataclass
class Parsed:
    """What is in a file; contents are None where the file has no data."""

    masks: dict[int, int] = field(default_factory=dict)
    policies: list[tuple[int, int]] = field(default_factory=list)
    pages: list[tuple[int, int, int, int, bytes | None]] = field(default_factory=list)
    """(GPA, mask, flags, type, contents)."""
    contexts: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """(GPA, mask, vCPU, contents)."""
    kinds: list[int] = field(default_factory=list)


def parse(data: bytes) -> Parsed:
    assert data[:4] == b"IGVM"
    version, start, size, total, checksum = struct.unpack_from("<5I", data, 4)
    head = data[:20] + bytes(4) + data[24 : {1: 24, 2: 32}[version]]
    assert total == len(data)
    assert zlib.crc32(head + data[start : start + size]) == checksum
    found, at = Parsed(), start
    while at < start + size:
        kind, length = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 8 + (length + 7) // 8 * 8
        found.kinds.append(kind)
        if kind == 1:
            mask, _, platform, _, _ = struct.unpack("<IBBHQ", body)
            found.masks[platform] = mask
        elif kind == 0x101:
            found.policies.append(struct.unpack_from("<QI", body))
        elif kind == 0x302:
            gpa, mask, offset, flags, data_type = struct.unpack_from("<QIIIH", body)
            found.pages.append((gpa, mask, flags, data_type, data[offset : offset + PAGE] if offset else None))
        elif kind == 0x304:
            gpa, mask, offset, number = struct.unpack_from("<QIIH", body)
            found.contexts.append((gpa, mask, number, data[offset : offset + PAGE]))
    assert at == start + size
    return found


def sev_digest(found: Parsed, platform: int) -> bytes:
    bit = found.masks[platform]
    digest = hashlib.sha256()
    for _, mask, _, _, contents in found.pages:
        if mask & bit:
            digest.update(contents or bytes(PAGE))
    for _, mask, _, contents in found.contexts:
        if mask & bit and platform == SEV_ES:
            digest.update(contents)
    return digest.digest()


def snp_digest(found: Parsed) -> bytes:
    """PAGE_INFO: digest so far, digest of the contents, length 0x70, type of page, then the GPA at 0x68.

    TSC_SCALE and TSC_OFFSET of a VMSA count as zero.
    """
    bit, digest = found.masks[SEV_SNP], bytes(48)
    steps = [(snp_type(flags, kind, data), gpa, data) for gpa, mask, flags, kind, data in found.pages if mask & bit]
    vmsas = [(gpa, data) for gpa, mask, _, data in found.contexts if mask & bit]
    steps += [(2, gpa, data[:0x2F0] + bytes(16) + data[0x300:]) for gpa, data in vmsas]
    for kind, gpa, contents in steps:
        measured = hashlib.sha384(contents or b"").digest() if kind in {1, 2} else bytes(48)
        digest = hashlib.sha384(digest + measured + struct.pack("<HBBIQ", 0x70, kind, 0, 0, gpa)).digest()
    return digest


def snp_type(flags: int, kind: int, contents: bytes | None) -> int:
    """NORMAL 1, ZERO 3, UNMEASURED 4, SECRETS 5, CPUID 6."""
    if kind:
        return {1: 5, 2: 6}[kind]
    if flags & 2:
        return 4
    return 3 if contents is None else 1


def header(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def platform(number: int, mask: int, version: int = 1) -> bytes:
    return header(1, struct.pack("<IBBHQ", mask, 0, number, version, 0))


def page(gpa: int, mask: int = 1, offset: int = 0, flags: int = 0, data_type: int = 0) -> bytes:
    return header(0x302, struct.pack("<QIIIHH", gpa, mask, offset, flags, data_type, 0))


def context(gpa: int, mask: int, offset: int, number: int = 0) -> bytes:
    return header(0x304, struct.pack("<QIIHH", gpa, mask, offset, number, 0))


def assemble(headers: list[bytes], data: bytes = b"", version: int = 1) -> bytes:
    """A file of those headers, with its checksum; `data` lie behind them, at `data_offset`."""
    variable = b"".join(headers)
    start = {1: 24, 2: 32}[version]
    tail = struct.pack("<II", 0, PAGE) if version == 2 else b""
    fixed = struct.pack("<4s4I", b"IGVM", version, start, len(variable), start + len(variable) + len(data))
    checksum = zlib.crc32(fixed + bytes(4) + tail + variable)
    return fixed + struct.pack("<I", checksum) + tail + variable + data


def data_offset(headers: list[bytes], version: int = 1) -> int:
    return {1: 24, 2: 32}[version] + sum(map(len, headers))


def resealed(data: bytes) -> bytes:
    """`data` with the checksum that its headers have now, where they are inside of it."""
    if len(data) < 32:
        return data
    version, start, size = struct.unpack_from("<3I", data, 4)
    fixed = 32 if version == 2 else 24
    checksum = zlib.crc32(data[:20] + bytes(4) + data[24:fixed] + data[start : start + size])
    return data[:20] + struct.pack("<I", checksum) + data[24:]
