"""Linux system calls that read or change files: their numbers, and where a stopped thread's registers have arguments.

x86-64 and arm64 only. arm64 has no calls without a folder's descriptor, such as `rename`.
"""

import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """`calls`: numbers by name; `audit`: the constant by which seccomp names it.

    Positions are those of 64-bit words in the registers that PTRACE_GETREGSET returns.
    """

    audit: int
    calls: dict[str, int]
    arguments: tuple[int, ...]
    number: int
    result: int
    skip_by_regset: bool  # whether a call's number is changed by a register set of its own


_X86_64 = Architecture(
    audit=0xC000003E,
    calls={
        "read": 0, "write": 1, "open": 2, "close": 3, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20,
        "msync": 26, "sendfile": 40, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82,
        "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "fallocate": 285,
        "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "sync_file_range": 277, "pwritev": 296, "syncfs": 306, "renameat2": 316, "copy_file_range": 326,
        "pwritev2": 328, "openat2": 437,
    },
    arguments=(14, 13, 12, 7, 9, 8),  # rdi rsi rdx r10 r8 r9
    number=15,  # orig_rax
    result=10,  # rax
    skip_by_regset=False,
)  # fmt: skip
_ARM64 = Architecture(
    audit=0xC00000B7,
    calls={
        "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46,
        "fallocate": 47, "openat": 56, "close": 57, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
        "pwrite64": 68, "pwritev": 70, "sendfile": 71, "fsync": 82, "fdatasync": 83, "sync_file_range": 84,
        "msync": 227, "syncfs": 267, "renameat2": 276, "copy_file_range": 285, "pwritev2": 287, "openat2": 437,
    },
    arguments=(0, 1, 2, 3, 4, 5),
    number=8,  # x8; written by NT_ARM_SYSTEM_CALL
    result=0,
    skip_by_regset=True,
)  # fmt: skip
_ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _ARM64}


def this_architecture() -> Architecture:
    """Return that of this machine. Raises RuntimeError for another one."""
    found = _ARCHITECTURES.get(platform.machine())
    if found is None:
        raise RuntimeError(f"System calls can be traced on {', '.join(_ARCHITECTURES)}, not on {platform.machine()}.")
    return found
