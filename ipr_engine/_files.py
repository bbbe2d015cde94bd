"""This file checks paths and writes files: a path that cannot be used is refused at once, not after an hour of work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipr_engine.errors import InvalidInputError

_ON_THE_WAY = ".tmp-"  # of a write that did not end
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
    """Return a free name in the same folder; whatever starts with ".tmp-" there is of a write that did not end."""
    return path.with_name(f"{_ON_THE_WAY}{os.getpid()}-{os.urandom(8).hex()}")


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder below `parent` for what is on the way, and remove it at the end of the block, where it was not renamed.

    What killed processes left of such folders is removed first. A lock on each, which ends with its process, says who lives.
    """
    import shutil  # what only decides does without its compressors

    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.glob(f"{_ON_THE_WAY}*"):
        with _opened(other) as left_over:
            if left_over is not None and _lock(left_over, wait=False):
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


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to the disk: names that were made or replaced in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
