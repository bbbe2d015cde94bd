"""This file checks paths and writes files: a path that cannot be used is refused at once, not after an hour of work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipr_engine.errors import InvalidInputError

_ON_THE_WAY = ".tmp-"  # of a write that did not end
_ITS_NAME = re.compile(re.escape(_ON_THE_WAY) + "[0-9]+-[0-9a-f]{16}")  # as `temporary_beside` gives it
_CHUNK = 1 << 18  # stays in the L2 cache between the read and the hash


def as_path(value: object, name: str) -> Path:
    """Return the path that a caller gives; InvalidInputError names the argument."""
    if not isinstance(value, (str, os.PathLike)):
        raise InvalidInputError(f"{name}: expected a str or os.PathLike, got {type(value).__name__}; pass a folder")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInputError(f"{name}: expected a path, got {text!r}; pass a folder")
    return Path(text)


def writable_folder(path: str | os.PathLike[str], name: str) -> Path:
    """Return the path of a folder that is there and may be written to, or can be made. Nothing is made yet.

    Raises:
        InvalidInputError: names the argument, and which part of the path is in the way.
    """
    folder = _path(path, name, "a folder")
    place = folder
    # The nearest thing that exists decides: the folders below it can be made.
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InvalidInputError(
            f"{name}: expected a folder to write to, got {folder}: {place} is no folder; name another"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"{name}: expected a folder to write to, got {folder}: {place} cannot be written; name another"
        )
    return folder


def writable_file(path: str | os.PathLike[str], name: str, *, suffix: str = "") -> Path:
    """Return the path of a file that can be written, in a folder that is there.

    Nothing is made yet; what is there will be replaced. suffix: what the name must end in, whatever its case.

    Raises:
        InvalidInputError: names the argument, and what is in the way.
    """
    file = _path(path, name, "a file")
    if not file.name.lower().endswith(suffix):
        raise InvalidInputError(f"{name}: expected a file to write that ends in {suffix}, got {file}")
    if file.is_dir():
        raise InvalidInputError(f"{name}: expected a file to write, got the folder {file}; name a file in it")
    if not file.parent.is_dir():
        raise InvalidInputError(
            f"{name}: expected a file to write, got {file}: its folder does not exist; make it, or name another"
        )
    # A new file needs its folder to be writable, an old one only itself.
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InvalidInputError(f"{name}: expected a file to write, got {file}, which cannot be written; name another")
    return file


def _path(path: str | os.PathLike[str], name: str, what: str) -> Path:
    """Return a path that is not empty; `what` names what was expected."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InvalidInputError(f"{name}: expected {what}, got {text!r}")
    return Path(text)


def sha256_hex(*parts: bytes) -> str:
    """Return the hex digest of these bytes, one part after another."""
    import hashlib  # OpenSSL takes 3 ms to load, and nothing is hashed before a bundle is read

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Return (hex digest, bytes) of a file, in one pass and without holding it; hashing makes no mapped table resident."""
    import hashlib

    digest, buffer, total = hashlib.sha256(), bytearray(_CHUNK), 0
    view = memoryview(buffer)
    # Unbuffered into one buffer of ours: no copy in between.
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            total += count
    return digest.hexdigest(), total


def temporary_beside(path: Path) -> Path:
    """Return a free name in the same folder, by which `left_over` finds what comes of it where the write does not end."""
    return path.with_name(f"{_ON_THE_WAY}{os.getpid()}-{os.urandom(8).hex()}")


def left_over(folder: Path) -> list[Path]:
    """Return what bears a name of `temporary_beside` in a folder: of a write that goes on, or did not end; the rest is somebody's own."""
    return [path for path in folder.glob(f"{_ON_THE_WAY}*") if _ITS_NAME.fullmatch(path.name)]


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder below `parent` for what is on the way, and remove it at the end of the block, where it was not renamed.

    What killed processes left of such folders is removed first, and nothing of another name. A lock on each, which ends with its process,
    says who lives; where a folder cannot be locked, as on NFS, none is removed.
    """
    import shutil  # what only decides does without its compressors

    parent.mkdir(parents=True, exist_ok=True)
    for other in left_over(parent):
        with _opened(other) as descriptor:
            if descriptor is not None and _lock(descriptor, wait=False):
                shutil.rmtree(other, ignore_errors=True)
    while True:
        folder = temporary_beside(parent / "any")
        folder.mkdir()
        with _opened(folder) as own:
            if own is not None:
                _lock(own, wait=True)
            if not folder.exists():  # another process took it for left over, before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Give the descriptor of a folder; None for whatever is none, or is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock what is open, and return whether that was done: another process may hold it, or the file system have no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, which replaces it at the end of the block, or is deleted after an error."""
    temp = temporary_beside(path)
    try:
        yield temp
        # Atomic within a file system, which a name in the same folder is on.
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the whole of it or what was there before, after a crash too."""
    with replacing(path) as temp:
        write_new(temp, data)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, and flush it to the disk."""
    # x: somebody else's file of that name is never touched.
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_private(path: Path, data: bytes) -> None:
    """Write a file that is not there yet and that its owner alone may read: the whole of it or nothing, wherever the process ends.

    Raises:
        FileExistsError: something of that name is there; it stays as it is.
    """
    if os.path.lexists(path):
        raise FileExistsError(path)
    temp = temporary_beside(path)
    _write_private(temp, data)
    try:
        os.link(temp, path)  # as a rename, but never over another file
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: there a process killed in the midst may leave a part
        _write_private(path, data)
    finally:
        temp.unlink(missing_ok=True)


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            out.write(data)
            out.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to the disk: names that were made or replaced in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
