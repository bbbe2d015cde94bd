"""The owner's key seals what a record keeps of a prompt, and keys the hashes of fitting prompts that a bundle keeps.

    key = OwnerKey.create("owner.key")     # or `ipr key owner.key`: 32 random bytes in hex, readable by their owner alone
    with engine.recorder("log.jsonl", keep_x=True, key=key) as recorder: ...

Each use has a key of its own, derived from the 32 bytes, so that none tells anything of another.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine._files import write_private
from ipr_engine._validate import lone_surrogate
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.errors import InvalidInputError, KeyMismatchError

KEY_BYTES = 32
KEY_FILE = "owner.key"  # beside the bundles of a root, never inside one
# Of the embedded bundle, whose prompts are public.
PUBLISHED = DEFAULT_BUNDLE / KEY_FILE
NONCE_BYTES = 12  # of AES-GCM; random ones last for 2^32 records of one key (NIST SP 800-38D, section 8.3)
_MAKE = "make one with `ipr key FILE`"


class OwnerKey:
    """An `OwnerKey` is 32 secret bytes. Neither repr nor an error shows them; `id` names them.

    Attributes:
        id: 16 hex digits that tell one key from another and nothing of its bytes.
    """

    __slots__ = ("_cipher", "_hashing", "id")

    def __init__(self, key: bytes) -> None:
        """Take the 32 bytes.

        Raises:
            InvalidInputError: it is something else.
        """
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise InvalidInputError(f"key: expected {KEY_BYTES} bytes, got {got}; {_MAKE}")
        self.id = _derived(key, "key id").hex()[:16]
        self._hashing = _derived(key, "prompt hashes")
        self._cipher = _derived(key, "records")

    @classmethod
    def load(cls, key: str | os.PathLike[str] | bytes | OwnerKey) -> OwnerKey:
        """Return the key of a file of 64 hex digits, or of 32 bytes.

        Raises:
            InvalidInputError: the file cannot be read or holds something else. The message shows nothing of it.
        """
        if isinstance(key, OwnerKey):
            return key
        if isinstance(key, bytes):
            return cls(key)
        path = _path(key)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"key: cannot read {path}: {error.strerror}; {_MAKE}") from None
        # Not decoded before it is checked: an error would show bytes of whatever the file holds.
        text = data.strip()
        if not data:
            raise InvalidInputError(f"key: {path} is empty, and nothing is lost with it; delete it, then {_MAKE}")
        if len(text) != 2 * KEY_BYTES or not set(text) <= set(b"0123456789abcdef"):
            raise InvalidInputError(
                f"key: expected {2 * KEY_BYTES} lower-case hex digits in {path}, got something else; {_MAKE}"
            )
        return cls(bytes.fromhex(text.decode()))

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> OwnerKey:
        """Write a new key to a file that only its owner may read (mode 0600).

        Raises:
            InvalidInputError: the file is there already, or cannot be written. No key is ever replaced: what it sealed would be lost.
        """
        file, key = _path(path), secrets.token_bytes(KEY_BYTES)
        try:
            write_private(file, f"{key.hex()}\n".encode())
        except FileExistsError:
            raise InvalidInputError(
                f"key: {file} is there already, and a key is never replaced; name another file, or use this one"
            ) from None
        except OSError as error:
            raise InvalidInputError(f"key: cannot write {file}: {error.strerror}; name another file") from None
        return cls(key)

    def digest(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of a message under the key of prompt hashes: 32 bytes."""
        return hmac.digest(self._hashing, message, "sha256")

    def seal(self, plain: bytes, beside: bytes) -> tuple[bytes, bytes]:
        """Return nonce and ciphertext by AES-256-GCM; `beside` is authenticated and not encrypted.

        Raises:
            BackendUnavailableError: the extra [records] is missing.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce, self._aead().encrypt(nonce, plain, beside)

    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes | None:
        """Return what was sealed; None where ciphertext or `beside` is not as it was sealed under this key."""
        invalid: type[Exception] = need("cryptography.exceptions", "opening a sealed record", "records").InvalidTag
        try:
            plain: bytes = self._aead().decrypt(nonce, sealed, beside)
        except (invalid, ValueError):
            return None
        return plain

    def require_cipher(self) -> None:
        """Raise BackendUnavailableError where what seals is not installed: before the first record, not with it."""
        self._aead()

    def _aead(self) -> Any:
        aead = need("cryptography.hazmat.primitives.ciphers.aead", "sealing records under a key", "records")
        return aead.AESGCM(self._cipher)

    def __eq__(self, other: object) -> bool:
        # In constant time: how long it takes tells nothing of either key.
        return hmac.compare_digest(self._cipher, other._cipher) if isinstance(other, OwnerKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"OwnerKey(id={self.id!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an OwnerKey is not pickled: load it where it is used")


Key = OwnerKey | str | os.PathLike[str] | bytes


def keys_beside(root: Path, given: Key | Sequence[Key] | None) -> tuple[OwnerKey, ...]:
    """Return the keys given, one or several; else that of ROOT/owner.key, where it is."""
    if given is None:
        return (OwnerKey.load(root / KEY_FILE),) if (root / KEY_FILE).exists() else ()
    if isinstance(given, (str, bytes, os.PathLike, OwnerKey)):
        return (OwnerKey.load(given),)
    return tuple(OwnerKey.load(one) for one in given)


def key_of_root(root: Path) -> OwnerKey:
    """Return the key of ROOT/owner.key, which is made where it is not there yet."""
    if (root / KEY_FILE).exists():
        return OwnerKey.load(root / KEY_FILE)
    root.mkdir(parents=True, exist_ok=True)
    try:
        return OwnerKey.create(root / KEY_FILE)
    except InvalidInputError:
        if not (root / KEY_FILE).exists():
            raise
        return OwnerKey.load(root / KEY_FILE)  # another process has made it meanwhile


def key_of(id: str, keys: Sequence[OwnerKey], what: str) -> OwnerKey:
    """Return the key of this id among those at hand, and the published one of the default bundle.

    Raises:
        KeyMismatchError: it is none of them. what: what needs it, for the message.
    """
    found = next((key for key in keys if key.id == id), None)
    if found is None and PUBLISHED.exists() and (published := OwnerKey.load(PUBLISHED)).id == id:
        found = published
    if found is None:
        got = ", ".join(key.id for key in keys)
        raise KeyMismatchError(
            f"key: {what} need the key of id {id}, got {f'that of id {got}' if got else 'none'}; give its file, "
            f"or put it beside the bundle as ROOT/{KEY_FILE}, where `ipr train` leaves it"
        )
    return found


def _derived(key: bytes, use: str) -> bytes:
    """Return the 32 bytes of a use of the key."""
    return hmac.digest(key, f"ipr_engine {use}".encode(), "sha256")


def _path(path: object) -> Path:
    """Return the path of a key file; InvalidInputError for what is none, and for what looks like a key itself."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInputError(f"key: expected the path of a key file or {KEY_BYTES} bytes, got {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInputError("key: expected the path of a key file, got none")
    if lone_surrogate(text) is not None:
        raise InvalidInputError("key: expected the path of a key file, got text with a lone surrogate")
    # Whoever passes the key in place of its file would see it in every error that names the path.
    named = text.strip().rpartition("/")[2].lower()
    if len(named) == 2 * KEY_BYTES and set(named) <= set("0123456789abcdef"):
        raise InvalidInputError("key: got what looks like a key itself; give the path of the file that holds it")
    return Path(text)
