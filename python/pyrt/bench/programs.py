"""The programs that run inside what is measured: a few instructions each, without libc and without a compiler.

So what is timed is the container and not its program, and everybody runs the very same bytes.

    clock    prints CLOCK_MONOTONIC in nanoseconds, and ends
    stamp    prints it, then becomes the program that its arguments name: the time of somebody's execve
    idle     sleeps for ever
    linger   prints the clock, then sleeps for ever
"""

from __future__ import annotations

import platform
import struct
from typing import TYPE_CHECKING, Final

from pyrt.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

_PRINT_CLOCK: Final = """
    48 89 e3            mov rbx, rsp              # argc, argv, environment lie here
    48 83 ec 40         sub rsp, 64
    bf 01 00 00 00      mov edi, 1                # CLOCK_MONOTONIC
    48 89 e6            mov rsi, rsp
    b8 e4 00 00 00      mov eax, 228              # clock_gettime
    0f 05               syscall
    48 8b 04 24         mov rax, [rsp]
    b9 00 ca 9a 3b      mov ecx, 1000000000
    48 f7 e1            mul rcx
    48 03 44 24 08      add rax, [rsp+8]
    48 8d 7c 24 3f      lea rdi, [rsp+63]
    c6 07 0a            mov byte [rdi], 10        # a newline, and the digits before it
    b9 0a 00 00 00      mov ecx, 10
    31 d2               xor edx, edx              # next digit:
    48 f7 f1            div rcx
    80 c2 30            add dl, 48
    48 ff cf            dec rdi
    88 17               mov [rdi], dl
    48 85 c0            test rax, rax
    75 ee               jne next digit
    48 8d 54 24 40      lea rdx, [rsp+64]
    48 29 fa            sub rdx, rdi
    48 89 fe            mov rsi, rdi
    bf 01 00 00 00      mov edi, 1
    89 f8               mov eax, edi              # write
    0f 05               syscall
"""
_END: Final = """
    31 ff               xor edi, edi
    b8 e7 00 00 00      mov eax, 231              # exit_group
    0f 05               syscall
"""
_EXECUTE_ARGUMENTS: Final = """
    48 8b 7b 10         mov rdi, [rbx+16]         # argv[1]
    48 8d 73 10         lea rsi, [rbx+16]
    48 8b 03            mov rax, [rbx]
    48 8d 54 c3 10      lea rdx, [rbx+rax*8+16]   # the environment
    b8 3b 00 00 00      mov eax, 59               # execve
    0f 05               syscall
    bf 7f 00 00 00      mov edi, 127
    b8 e7 00 00 00      mov eax, 231              # exit_group
    0f 05               syscall
"""
_SLEEP: Final = """
    b8 22 00 00 00      mov eax, 34               # pause
    0f 05               syscall
    eb f7               jmp the beginning
"""
_CODE: Final = {
    "clock": _PRINT_CLOCK + _END,
    "stamp": _PRINT_CLOCK + _EXECUTE_ARGUMENTS,
    "idle": _SLEEP,
    "linger": _PRINT_CLOCK + _SLEEP,
}

# Columns of a listing: the bytes come first, the instruction after them.
_BYTES_END: Final = 24
_ADDRESS: Final = 0x400000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56
_EXECUTABLE, _X86_64, _LOAD, _READ_EXECUTE, _PAGE = 2, 62, 1, 5, 4096


def write_programs(folder: Path) -> None:
    """Writes all of them into ``folder``. Raises HostError on a machine whose instructions are others."""
    if platform.machine() != "x86_64":
        raise HostError(f"the benches' programs are written for x86_64, and this machine is {platform.machine()}")
    for name in _CODE:
        (folder / name).write_bytes(program(name))
        (folder / name).chmod(0o755)


def program(name: str) -> bytes:
    """An ELF file (elf(5)) of one segment: its headers, and the code behind them."""
    code = b"".join(bytes.fromhex(line[:_BYTES_END]) for line in _CODE[name].splitlines())
    start = _ELF_HEADER + _PROGRAM_HEADER
    size = start + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    kind = struct.pack("<HHIQQQ", _EXECUTABLE, _X86_64, 1, _ADDRESS + start, _ELF_HEADER, 0)
    sizes = struct.pack("<IHHHHHH", 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
    return identity + kind + sizes + segment + code
