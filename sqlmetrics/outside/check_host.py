"""The checks around a store: file system, room, rights, SQLite, systemd, and files of prometheus_client's own mode."""

from __future__ import annotations

import configparser
import glob
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from .. import config
from ..cells.ownership import SUFFIXES
from ..rows import wal
from ..rows.renew import DAMAGED_SUFFIX
from .findings import ERROR, OK, WARNING, Finding
from .words import size

_FAR = re.compile(r"nfs4?|cifs|smb3?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ocfs2|fuse\.(?!fuseiso).*|vboxsf")
"""File systems that several machines share, or that do not map files in the way that WAL and cells need."""
_FREE = 64 * 1024 * 1024
_TOO_FEW = 4 * 1024 * 1024
_FREE_SHARE = 0.05
_MMAP_FILE = re.compile(r"(counter|histogram|summary|gauge_(live)?(all|min|max|sum|mostrecent))_.+\.db")
_LOGIND = ("/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf")
_LOGIND_PARTS = ("/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d", "/etc/systemd/logind.conf.d")
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - it is looked for in a path
_SYSTEMD = "/run/systemd/system"


def findings(path: str) -> Iterator[Finding]:
    """Yield all findings, even if the store cannot be read. Raises OSError if the system cannot tell."""
    yield filesystem(path)
    yield room(path)
    yield from rights(path)
    yield sqlite()
    yield from aside(path)
    yield mmap_files(path)
    yield remove_ipc(path)


class Mount(NamedTuple):
    """A mounted file system: where, and of what kind."""

    place: str
    kind: str


def mount_of(path: str, text: str) -> Mount | None:
    """Return the mount that a path is in. text: the content of ``/proc/self/mountinfo``, see proc(5)."""
    found: list[Mount] = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if path == place or path.startswith(place.rstrip("/") + "/"):
            found.append(Mount(place, after.split()[0]))
    return max(reversed(found), key=lambda one: len(one.place), default=None)  # of two at the same place, the later one


def filesystem(path: str) -> Finding:
    """Check the kind of file system, because WAL and cells are shared memory of one machine."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mount = mount_of(path, file.read())
    except OSError:
        mount = None
    if mount is None:
        return Finding("filesystem", OK, "its kind cannot be told here (no /proc/self/mountinfo)")
    text = f"{mount.kind}, mounted at {mount.place}"
    if _FAR.fullmatch(mount.kind):
        return Finding("filesystem", ERROR, text, "have the store on tmpfs or a local disk: the processes share memory")
    if mount.kind == "overlay":
        fix = "mount a volume or a tmpfs for it: the writable layer of a container is slow, and gone with it"
        return Finding("filesystem", WARNING, text, fix)
    return Finding("filesystem", OK, text)


def room(path: str) -> Finding:
    """Check the free space on the disk: without any, new children wait in memory."""
    disk = os.statvfs(os.path.dirname(path))
    free, of = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    text = f"{size(free)} of {size(of)} free"
    fix = "free some: df and du; a tmpfs gets more by mount -o remount,size=..., a container by --shm-size"
    if disk.f_files and not disk.f_favail:
        return Finding("room", ERROR, "the file system has no inode left", "delete files of it")
    if free < _TOO_FEW:
        return Finding("room", ERROR, text, fix)
    return Finding(
        "room", WARNING if free < _FREE and free < _FREE_SHARE * of else OK, text, fix if free < _FREE else ""
    )


def rights(path: str) -> Iterator[Finding]:
    """Check the files' owners and modes: all workers must be able to write them, and nobody else."""
    folder = os.path.dirname(path)
    found = {name: os.lstat(path + name) for name in SUFFIXES if os.path.lexists(path + name)}
    if not found:
        return
    texts = {f"{stat.filemode(one.st_mode)} {one.st_uid}:{one.st_gid}" for one in found.values()}
    if len(texts) > 1:
        each = ", ".join(f"{os.path.basename(path) + name} {one.st_uid}:{one.st_gid}" for name, one in found.items())
        fix = f"chown and chmod the other files like {path}: each process of the app writes all of them"
        yield Finding("rights", ERROR, f"the files differ in owner, group or mode: {each}", fix)
    elif any(one.st_mode & stat.S_IWOTH for one in found.values()):
        yield Finding("rights", ERROR, f"anybody may write the files ({texts.pop()})", f"chmod o-w {path}*")
    else:
        yield Finding("rights", OK, f"{texts.pop()} (mode uid:gid)")
    yield _folder(folder, found[""] if "" in found else next(iter(found.values())))


def _folder(folder: str, database: os.stat_result) -> Finding:
    status = os.stat(folder)
    text = f"{folder} {stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if status.st_mode & stat.S_IWOTH:
        kind = WARNING if status.st_mode & stat.S_ISVTX else ERROR
        fix = f"give the store a folder of its own, such as {folder}/app: others can put files beside it here"
        return Finding("folder", kind, f"anybody may write to it: {text}", fix)
    may_owner = status.st_uid == database.st_uid and status.st_mode & stat.S_IWUSR
    may_group = status.st_gid == database.st_gid and status.st_mode & stat.S_IWGRP
    if not (may_owner or may_group or database.st_uid == 0):
        fix = f"chown {database.st_uid}:{database.st_gid} {folder}, or give it that group and mode 2770"
        return Finding("folder", ERROR, f"the owner of the files may not make files in it: {text}", fix)
    return Finding("folder", OK, text)


def sqlite() -> Finding:
    """Check the SQLite that this command uses; the app uses the same one if both are in one environment."""
    version = ".".join(map(str, wal.version()))
    warning = wal.warning()
    if warning:
        return Finding("sqlite", ERROR, warning, "pip install -U apsw, in the app's environment too")
    return Finding("sqlite", OK, f"{version} (3.51.3 or newer is needed)")


def aside(path: str) -> Iterator[Finding]:
    """Find the database that damage has left beside the store."""
    name = path + DAMAGED_SUFFIX
    if os.path.lexists(name):
        text = f"{name} ({size(os.lstat(name).st_size)}) was a database of which nothing could be read"
        fix = "find out why (a full or failing disk, a restored file, another program), then delete it"
        yield Finding("damage", WARNING, text, fix)


def mmap_files(path: str) -> Finding:
    """Find files of prometheus_client's own multiprocess mode: a process that writes them does not use the store."""
    folders = {os.path.dirname(path)}
    folders |= {os.environ[one] for one in config.PATH_VARIABLES[1:] if os.environ.get(one)}
    names = [name for one in sorted(folders) for name in glob.glob(os.path.join(glob.escape(one), "*.db"))]
    names = [name for name in names if _MMAP_FILE.fullmatch(os.path.basename(name))]
    if not names:
        return Finding("mmap files", OK, "none of prometheus_client's own mode beside the store")
    text = f"{len(names)} of prometheus_client's own mode, such as {names[0]}"
    fix = "if they grow, a process runs without sqlmetrics: call install() in it, or start it by `sqlmetrics run`"
    return Finding("mmap files", WARNING, text, f"{fix}; if they do not, delete them")


def remove_ipc(path: str) -> Finding:
    """Check whether systemd deletes the owner's files in /dev/shm at a logout (logind.conf(5), RemoveIPC=)."""
    try:
        owner = os.stat(path).st_uid
    except OSError:
        owner = os.geteuid()
    is_in_reach = path.startswith(_SHARED_MEMORY) and owner > _system_uids() and os.path.isdir(_SYSTEMD)
    if not is_in_reach or not _removes_ipc():
        return Finding("RemoveIPC", OK, "nobody deletes the files at a logout")
    text = f"systemd deletes files in /dev/shm of uid {owner} when its last session ends"
    fix = "run the app as a system user, or have RemoveIPC=no in /etc/systemd/logind.conf, or the store below /run"
    return Finding("RemoveIPC", WARNING, text, fix)


def _system_uids() -> int:
    try:
        with open("/etc/login.defs", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^\s*SYS_UID_MAX\s+(\d+)", file.read(), re.M)
    except OSError:
        found = None
    return int(found[1]) if found else 999


def _removes_ipc() -> bool:
    """Whether RemoveIPC is on, as by default; the last file that sets it counts."""
    parts = sorted((name for one in _LOGIND_PARTS for name in glob.glob(f"{one}/*.conf")), key=os.path.basename)
    said = True
    for name in [*_LOGIND, *parts]:
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            parser.read(name, encoding="utf-8")
            said = parser.getboolean("Login", "RemoveIPC", fallback=said)
        except (configparser.Error, ValueError, UnicodeDecodeError):
            continue
    return said
