"""CPUID in libraries, found and replaced."""

import os
import re
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

CPUID: Final = b"\x0f\xa2"
UNKNOWN: Final = b"\x0f\x04"  # known to no processor; as in answers.c
INSTRUCTION: Final = re.compile(rb"^\s*([0-9a-f]+):\s+cpuid", re.MULTILINE)
ANSWERS_SOURCE: Final = Path(__file__).with_name("answers.c")
ELF: Final = b"\x7fELF"
LOADED: Final = 1  # kind of a segment


def patch_libraries(folder: Path) -> int:
    """Replace CPUID in every library under a folder, links apart; return how many were found.

    A file is written anew beside the old one, which may have other names elsewhere.
    """
    libraries = [path for path in sorted(folder.rglob("*.so*")) if not path.is_symlink() and _may_ask(path)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # objdump's are processes
        return sum(pool.map(_patch, libraries))


def _may_ask(path: Path) -> bool:
    content = path.read_bytes() if path.is_file() else b""
    return content.startswith(ELF) and CPUID in content


def _patch(path: Path) -> int:
    content = bytearray(path.read_bytes())
    places = [_offset(content, address) for address in _addresses(path)]
    for place in places:
        if content[place : place + 2] != CPUID:
            raise ValueError(f"{path}: no CPUID at {place:#x}, where objdump sees one")
        content[place : place + 2] = UNKNOWN
    if places:
        beside = path.with_name(f".{path.name}.partial")
        beside.write_bytes(content)
        shutil.copymode(path, beside)
        beside.replace(path)
    return len(places)


def _addresses(path: Path) -> list[int]:
    command = f"objdump -d --no-show-raw-insn '{path}' | grep -P '\\tcpuid'"
    printed = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=False).stdout
    return [int(found, 16) for found in INSTRUCTION.findall(printed)]


def _offset(content: bytearray, address: int) -> int:
    """Return where in a 64-bit ELF file that lies which is loaded to an address."""
    (table,) = struct.unpack_from("<Q", content, 32)
    size, number = struct.unpack_from("<HH", content, 54)
    for at in range(table, table + size * number, size):
        kind, _, offset, start, _, length = struct.unpack_from("<IIQQQQ", content, at)
        if kind == LOADED and start <= address < start + length:
            return int(offset + address - start)
    raise ValueError(f"nothing is loaded to {address:#x}")
