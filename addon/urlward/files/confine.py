"""Confinement of a process that decodes what strangers made: no files, no network, no other program.

Decoders of pictures and video have always had faults by which a file takes over who decodes it. So that is
done in a process that can do next to nothing: a filter of system calls (seccomp(2)) leaves memory, the
descriptors it has and the clock; limits (setrlimit(2)) bound what it takes of the machine; and where root
starts it, it is nobody's (credentials(7)). What is not allowed fails with EPERM, so that a library that only
tries does not die of it.
"""

import ctypes
import errno
import os
import platform
import pwd
import resource
import signal
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from urlward.engine.errors import UrlwardError
from urlward.process import end_with_parent


class Limits(NamedTuple):
    """Resources that a confined process may take.

    Attributes:
        memory: bytes of address space, beyond what it has.
        seconds: of CPU time.
    """

    memory: int
    seconds: int


ALLOWED: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13,
        "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96,
        "getrusage": 98, "times": 100, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202,
        "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "getcpu": 309, "getrandom": 318,
    },
    "aarch64": {
        "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
        "ppoll": 73, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113,
        "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
        "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "times": 153, "getrusage": 165, "getcpu": 168, "gettimeofday": 169,
        "getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "madvise": 233,
        "getrandom": 278,
    },
}  # fmt: skip
"""System calls that are allowed, by machine, with their numbers (``asm/unistd_64.h``,
``asm-generic/unistd.h``)."""

NOT_EXECUTABLE: Mapping[str, Mapping[str, int]] = {
    "x86_64": {"mmap": 9, "mprotect": 10},
    "aarch64": {"mmap": 222, "mprotect": 226},
}
"""Those that are allowed for memory that holds no code."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Of `seccomp_data` (``linux/audit.h``)."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
"""What a filter returns (``linux/seccomp.h``)."""
_LOAD, _IF_EQUAL, _IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
"""Instructions of the filter (``linux/bpf_common.h``): load a word of `seccomp_data`, jump, return."""
_NUMBER, _ARCHITECTURE, _PROTECTION = 0, 4, 32
"""Places of the call's number, the architecture, and the third argument's low half, in `seccomp_data`."""
_PROT_EXEC = 4
_INSTRUCTION = struct.Struct("=HBBI")
_NOBODY = 65_534
_CAPABILITIES_VERSION = 0x20080522
_FILES = 16
"""Descriptors that it may have."""


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_of(machine: str) -> bytes:
    """Filter of system calls, as instructions of classic BPF.

    Args:
        machine: as `platform.machine` has it.

    Raises:
        UrlwardError: for a machine of which the numbers are not known.
    """
    if machine not in ALLOWED:
        raise UrlwardError(f"system calls of {machine} are not known")
    found = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),  # another one has other numbers
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number in ALLOWED[machine].values():
        found += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in NOT_EXECUTABLE[machine].values():
        found += [
            (_IF_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _PROTECTION),
            (_IF_ANY, 1, 0, _PROT_EXEC),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _DENY),
        ]
    found.append((_RETURN, 0, 0, _DENY))
    return b"".join(_INSTRUCTION.pack(*each) for each in found)


def confine(limits: Limits, *, strictly: bool = True) -> None:
    """Confine this process, for as long as it lives. It has one thread, and the descriptors that it needs.

    Args:
        limits: of what it takes.
        strictly: whether the filter of system calls, and another user in place of root, are needed.

    Raises:
        UrlwardError: that is not to be had.
    """
    _limit(limits)
    try:
        _give_up_rights()
    except OSError as e:
        if strictly:
            raise UrlwardError(f"rights cannot be given up: {e.strerror or e}") from e
    end_with_parent(signal.SIGKILL)  # which another user's process has to ask for anew
    try:
        _filter_calls()
    except OSError as e:
        if strictly:
            raise UrlwardError(f"no filter of system calls (seccomp): {e.strerror or e}") from e


def _limit(limits: Limits) -> None:
    memory = _memory_used() + limits.memory
    for which, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        hard = resource.getrlimit(which)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (bound, bound))


def _memory_used() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _give_up_rights() -> None:
    """Be nobody in place of root, without any capability, and never have more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("nobody")
            uid, gid = user.pw_uid, user.pw_gid
        except KeyError:
            uid = gid = _NOBODY
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _filter_calls() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = filter_of(platform.machine())
    program = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
