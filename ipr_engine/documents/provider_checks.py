"""These functions check addresses, headers and keys of providers in documents; an error repeats nothing that may be a key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ipr_engine._validate import shown
from ipr_engine.documents.typed_document import looks_like_a_key
from ipr_engine.errors import InvalidInputError

MOST = 1e15  # of a number of bytes, seconds or requests: far beyond use, and a whole number of any kind
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_TELLABLE = re.compile(r"(?=.{1,64}\Z)[A-Z]+(_[A-Z0-9]+)+\Z")  # some keys are capitals and digits; none has words
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
_KEY_HEADER = re.compile(
    r"api-?key|authori[sz]ation|secret|passw|credential|cookie|(access|auth|security|session|id)-?token|^token$|-auth$|-key$"
)
_OWN_HEADERS = ("content-type", "content-length", "transfer-encoding", "connection")


def check_above_zero(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not 0 < value <= MOST:
            raise InvalidInputError(f"{name}: expected a number > 0 and at most {MOST:g}, got {shown(value)}")


def check_base_url(address: str) -> None:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise InvalidInputError("base_url: expected a port of 1 to 65535, and IPv6 in brackets") from None
    if not address.isprintable() or re.search(r"[\s{}<>\"\\^`|]", address):
        raise InvalidInputError(
            "base_url: has a blank or one of {}<>; variables are not filled in, write the address itself"
        )
    if "@" in parts.netloc:
        raise InvalidInputError("base_url: holds a user or password; keys come from the environment, see api_key_env")
    if parts.query or parts.fragment:
        raise InvalidInputError("base_url: has a ? or #; expected an address alone, such as https://api.openai.com/v1")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError("base_url: expected http(s)://host[:port]/path, such as https://api.openai.com/v1")
    if port == 0:
        raise InvalidInputError("base_url: expected a port of 1 to 65535")
    path = parts.path.rstrip("/")
    for ending in ("/chat/completions", "/responses", "/messages"):
        if path.endswith(ending):
            raise InvalidInputError(f"base_url: ends in {ending}, which is appended to it; leave it out")


def check_headers(
    headers: Mapping[str, str],
    *,
    instead: str = "name the environment variable in api_key_env, or a file that holds nothing else in api_key_file",
) -> None:
    """Check what is sent with every request.

    Args:
        instead: where this kind of document takes a key from, for the error about one that stands here.
    Raises:
        InvalidInputError: a header holds a key, cannot be sent, stands twice, or is set with each request.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        where, low = "headers" if looks_like_a_key(name) else f"headers.{shown(name)[1:-1]}", name.lower()
        check_header_name(where, name)
        if _KEY_HEADER.search(low.replace("_", "-")) or looks_like_a_key(value):
            raise InvalidInputError(f"{where}: holds a key, and headers are no secrets: {instead}")
        if not _PRINTABLE.match(value):
            raise InvalidInputError(f"{where}: expected printable ASCII on one line")
        if low in seen:
            raise InvalidInputError(f"{where}: stands twice but for case; give it once")
        seen.add(low)


def check_header_name(where: str, name: str) -> None:
    if not _HEADER.match(name):
        raise InvalidInputError(f"{where}: expected a header's name, such as x-team: letters, digits and -")
    if name.lower() in _OWN_HEADERS:
        raise InvalidInputError(f"{where}: is set with each request; leave it out")


def check_key_header(name: str, headers: Mapping[str, str], variable: str | None) -> None:
    if looks_like_a_key(name) or not _HEADER.match(name):
        raise InvalidInputError("api_key_header: expected a header's name, such as api-key, not a key")
    check_header_name("api_key_header", name)
    if variable is None:
        raise InvalidInputError("api_key_header: needs api_key_env, the environment variable that holds the key")
    if name.lower() in {other.lower() for other in headers}:
        raise InvalidInputError("api_key_header: stands in headers too; give it once")


def check_variable(where: str, name: str) -> None:
    if not _VARIABLE.match(name):
        raise InvalidInputError(
            f"{where}: expected the name of an environment variable in capitals, such as OPENAI_API_KEY, not a key"
        )


def key_in_environment(where: str, variable: str) -> str:
    """Return the key that a variable holds.

    Raises:
        InvalidInputError: it is not set, or cannot be sent. The variable is named where no key looks like it.
    """
    key = os.environ.get(variable)
    named = (
        f"the environment variable {variable}" if _TELLABLE.match(variable) else "the environment variable named there"
    )
    if not key:
        raise InvalidInputError(f"{where}: {named} is not set; it holds the key: export it before the command starts")
    return check_key(where, named, key)


def check_key(where: str, named: str, key: str) -> str:
    """Return a key that can be sent. named: what holds it, for errors."""
    if not key or key != key.strip() or not _PRINTABLE.match(key):
        raise InvalidInputError(
            f"{where}: {named} holds a key with a blank or a line break at an end, or not of printable ASCII"
        )
    return key
