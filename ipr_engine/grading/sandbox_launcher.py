"""This program runs another one where it reaches nothing: it is started by `sandbox`, by its path, and imports nothing of the package.

Three processes: this one, which a caller can kill; its child, the first of a new set of processes, with whom all others die; and
the program, without privileges, in a root folder of its own. argv[1]: JSON of `Sandbox._config`. A step that is refused ends it with
code 97 and one line on stderr, before the program has begun.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

REFUSED = 97
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID = 1, 2
PDEATHSIG, SECCOMP, NO_NEW_PRIVS = 1, 22, 38
SECCOMP_FILTER = 2
MOUNT_SETATTR, CLONE3 = 442, 435
MACHINES = {
    "x86_64": {"audit": 0xC000003E, "pivot_root": 155, "clone": 56, "refused": (
        272, 308, 165, 166, 319, 29, 101, 310, 311, 321, 298, 323, 248, 249, 250, 447)},
    "aarch64": {"audit": 0xC00000B7, "pivot_root": 41, "clone": 220, "refused": (
        97, 268, 40, 39, 279, 194, 117, 270, 271, 280, 241, 282, 217, 218, 219, 447)},
}  # fmt: skip
"""Machine -> numbers of its system calls. refused, in order: unshare, setns, mount, umount2; memfd_create and shmget, whose memory no
limit counts; ptrace, process_vm_readv and _writev, bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl, memfd_secret."""
IO_URING, X32 = 425, 0x40000000
FIRST_UID, UIDS = 60_578, 606  # that no distribution gives to anybody (systemd's table); RLIMIT_NPROC counts by user

_libc = ctypes.CDLL(None, use_errno=True)


def _call(step: str, result: int) -> None:
    if result != 0:
        _refuse(step, os.strerror(ctypes.get_errno()))


def _refuse(step: str, why: str) -> NoReturn:
    os.write(2, f"{step}: {why}\n".encode())
    os._exit(REFUSED)


def _mount(step: str, source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if part is None else part.encode() for part in (source, target, kind, data)]
    _call(step, _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def main() -> None:
    config = json.loads(sys.argv[1])
    if os.uname().machine not in MACHINES:
        _refuse("machine", f"expected one of {', '.join(MACHINES)}")
    as_root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    spaces = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (0 if as_root else NEWUSER)
    _call("unshare", _libc.unshare(spaces))
    try:
        if not as_root:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
        first = os.fork()
        if first == 0:
            _first_process(config, as_root)
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    except OSError as error:
        _refuse("start", error.strerror or "failed")
    os._exit(code if code >= 0 else 128 - code)


def _first_process(config: dict[str, Any], as_root: bool) -> NoReturn:
    """Make the root folder, start the program, take in whoever is left without a parent, and end with the program."""
    _libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _new_root(config)
        number = FIRST_UID + config["number"] % UIDS if as_root else None
        program = os.fork()
        if program == 0:
            _program(config, number)
        while True:
            ended, status = os.wait()
            if ended == program:
                os._exit(min(max(os.waitstatus_to_exitcode(status), 0), 90))
    except OSError as error:
        _refuse("root folder", error.strerror or "failed")


def _show(root: str, path: str) -> None:
    """Show a path of this machine at the same place below a root folder."""
    inside = root + path
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), inside)
        return
    if os.path.isdir(path):
        os.makedirs(inside, exist_ok=True)
    elif not os.path.exists(inside):
        os.close(os.open(inside, os.O_CREAT))
    _mount(f"mount {path}", path, inside, None, MS_BIND | MS_REC)


def _read_only(folder: str) -> None:
    attributes = struct.pack("QQQQ", ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
    done = _libc.syscall(MOUNT_SETATTR, AT_FDCWD, folder.encode(), AT_RECURSIVE, attributes, len(attributes))
    _call("mount_setattr (Linux 5.12 has it)", done)


def _new_root(config: dict[str, Any]) -> None:
    """Put a folder with the interpreter, read-only, an empty /tmp and three devices in the place of the root folder."""
    root = config["root"]
    _mount("mount private", None, "/", None, MS_REC | MS_PRIVATE)
    _mount("mount tmpfs", "tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    in_tmp = [path for path in config["shown"] if path.startswith("/tmp/")]  # an environment that somebody made there
    for path in config["shown"]:
        if path not in in_tmp:
            _show(root, path)
    os.makedirs(root + "/tmp", exist_ok=True)
    _read_only(root)
    space = f"size={config['space_bytes']},nr_inodes=4096,mode=1777"
    _mount("mount /tmp", "tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, space)
    for path in in_tmp:
        _show(root, path)
        _read_only(root + path)
    os.chdir(root)
    _call("pivot_root", _libc.syscall(MACHINES[os.uname().machine]["pivot_root"], b".", b"."))
    _call("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/tmp")


def _program(config: dict[str, Any], number: int | None) -> NoReturn:
    """Become the program: no privileges, limits, no environment but the one stated."""
    try:
        for name, most in config["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        if number is not None:
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
        _call("no_new_privs", _libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
        _filter_calls(MACHINES[os.uname().machine])
        os.closerange(3, 1024)
        os.setsid()
        os.execve(config["argv"][0], config["argv"], config["environment"])
    except (OSError, ValueError) as error:
        _refuse("program", getattr(error, "strerror", None) or "limits")
    os._exit(REFUSED)


def _filter_calls(machine: dict[str, Any]) -> None:
    """Refuse system calls that make namespaces or memory that no limit counts, for this process and all that come of it (seccomp)."""
    allow, fail, kill = 0x7FFF0000, 0x00050000, 0x80000000
    load, equal, at_least, any_bit, back = 0x20, 0x15, 0x35, 0x45, 0x06
    not_permitted, no_such_call = fail | 1, fail | 38
    program = [(load, 0, 0, 4), (equal, 1, 0, machine["audit"]), (back, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, X32), (back, 0, 0, not_permitted)]
    for call in (*machine["refused"], IO_URING):
        program += [(equal, 0, 1, call), (back, 0, 0, not_permitted)]
    # The C library falls back to clone, whose flags can be seen.
    program += [(equal, 0, 1, CLONE3), (back, 0, 0, no_such_call)]
    program += [
        (equal, 0, 3, machine["clone"]),
        (load, 0, 0, 16),
        (any_bit, 0, 1, NEWUSER),
        (back, 0, 0, not_permitted),
    ]
    program.append((back, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _call("seccomp", _libc.prctl(SECCOMP, SECCOMP_FILTER, whole, 0, 0))


if __name__ == "__main__":
    main()
