"""The bytes of a bundle: paths that stay inside its folder, sizes and hashes, each file read once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ipr_engine._files import file_sha256, sha256_hex
from ipr_engine.bundle.fields import Field, fail
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundlePathError,
)

_RESTORE = "restore the folder from its source, or write the bundle again with write_bundle"


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what the file system says into a bundle error that names the file and the field."""
    try:
        yield
    except BundleError:
        raise  # BundleNotFoundError is a FileNotFoundError too, and already says it all
    except FileNotFoundError:
        fail(BundleNotFoundError, where, "a file", "nothing there", _RESTORE)
    except OSError as error:
        fail(BundleFormatError, where, "a readable file", error.strerror or str(error), _RESTORE)


def read_regular(path: Path, where: str) -> bytes:
    with reading(where):
        _require_regular(path, where)
        return path.read_bytes()


def sha256_of(path: Path, where: str) -> tuple[str, int]:
    """Return (hex digest, bytes) of a regular file, in one pass and without holding it."""
    with reading(where):
        _require_regular(path, where)
        return file_sha256(path)


def _require_regular(path: Path, where: str) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        fail(BundleFormatError, where, "a regular file", "a folder or a special file", _RESTORE)


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """What bundle.json says of one file (FILE in the design), with its resolved path."""

    relative: str
    path: Path
    sha256: str
    size: int
    where: str

    def verify(self) -> Path:
        """Size, then hash."""
        with reading(self.where):
            _require_regular(self.path, self.where)
            size = os.stat(self.path).st_size
        self._require_size(size)
        digest, size = sha256_of(self.path, self.where)
        self._require_size(size)
        self._require_digest(digest)
        return self.path

    def read(self) -> bytes:
        """The file's bytes, the very ones that were hashed."""
        with reading(self.where):
            _require_regular(self.path, self.where)
            self._require_size(os.stat(self.path).st_size)
            data = self.path.read_bytes()
        self._require_size(len(data))
        self._require_digest(sha256_hex(data))
        return data

    def _require_size(self, size: int) -> None:
        if size != self.size:
            fail(BundleHashError, self.where, f"{self.size} bytes", f"{size} bytes", _RESTORE)

    def _require_digest(self, digest: str) -> None:
        if digest != self.sha256:
            fail(BundleHashError, self.where, f"sha256 {self.sha256}", digest, _RESTORE)


def file_entry(field: Field, folder: Path) -> FileEntry:
    keys = field.object(("path", "sha256", "bytes"))
    relative = keys["path"].text()
    path = _inside(folder, relative, keys["path"])
    return FileEntry(
        relative=relative,
        path=path,
        sha256=keys["sha256"].sha256(),
        size=keys["bytes"].integer(at_least=0),
        where=f"{path} ({field.where})",
    )


def is_plain_relative(text: str) -> bool:
    pure = PurePosixPath(text)
    plain = str(pure) == text and not any(character in text for character in "\\\0\n")
    return plain and text != "." and not pure.is_absolute() and ".." not in pure.parts


def _inside(folder: Path, relative: str, field: Field) -> Path:
    """folder/relative, once it is certain that it stays inside folder, links included."""
    if not is_plain_relative(relative):
        field.fail("a plain relative path without '..'", BundlePathError)
    path = folder / relative
    with reading(f"{path} ({field.where})"):
        real = os.path.realpath(path)  # not Path.resolve: it raises RuntimeError for links in a circle
        if not Path(real).is_relative_to(os.path.realpath(folder)):
            fail(BundlePathError, f"{path} ({field.where})", "a file inside the folder", f"a link to {real}")
    return path
