"""These functions check the values of a server's config; an error begins with the field's name, and repeats nothing that may be a key."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import orjson

from ipr_engine._validate import number, shown
from ipr_engine.documents.typed_document import looks_like_a_key, mistake_of, told
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.policy.policy_spec import ABOUT, DEFAULTS
from ipr_engine.policy.rules import AIMS

MOST = 1e15  # of a number of bytes, seconds or requests: far beyond use, and a whole number of any kind
MOST_US = 1e12  # of a budget, as an engine takes it
HEAD_BYTES = 8192  # the HTTP server takes no smaller buffer
RECORDS = ("key", "keep_prompts", "keep_x", "min_words")
SERVICE = ("fallback", "cache_entries", "limits", "budget_us")
SET_PER_REQUEST = ("model", "stream", "messages", "input")
"""Fields of a body that a request and the server set; a config cannot."""
_FORMS: Mapping[str, Any] = MappingProxyType(
    {
        "number": float | None,
        "number or infinity": float | None,
        "flag": bool | None,
        "text": str | None,
        "candidate": str | None,
        "candidates": tuple[str, ...] | str | None,
        "names": tuple[str, ...] | str | None,
        "prices": Mapping[str, tuple[float, ...] | Mapping[str, Any]] | None,
        "weights": Mapping[str, float] | None,
        "figures": Mapping[str, Mapping[str, float | None] | None] | None,
    }
)
"""Form of an option of a policy -> its type in a document."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@-]{0,127}\Z")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_OF_NO_KEY = sha256(b"").hexdigest()
_TELLABLE = re.compile(r"(?=.{1,64}\Z)[A-Z]+(_[A-Z0-9]+)+\Z")  # some keys are capitals and digits; none has words
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
_KEY_HEADER = re.compile(
    r"api-?key|authori[sz]ation|secret|passw|credential|cookie|(access|auth|security|session|id)-?token|^token$|-auth$|-key$"
)
_OWN_HEADERS = ("content-type", "content-length", "transfer-encoding", "connection")


def check_name(where: str, name: str) -> None:
    if not _NAME.match(name) or looks_like_a_key(name):
        raise InvalidInputError(
            f"{where}: expected a name of letters, digits and ._:/@-, at most 128, got {told(name)}"
        )


def check_some(owner: object, *names: str) -> None:
    """Raise unless these fields hold text; None stands for none."""
    for name in names:
        if getattr(owner, name) == "":
            raise InvalidInputError(f"{name}: is empty; write it, or leave it out where it may be")


def check_above_zero(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not 0 < value <= MOST:
            raise InvalidInputError(f"{name}: expected a number > 0 and at most {MOST:g}, got {shown(value)}")


def check_options(where: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in DEFAULTS:
            raise InvalidInputError(f"{where}.{name}: is no option of a policy; known: {', '.join(DEFAULTS)}")
        check_form(_FORMS[ABOUT[name].form or "figures"], value, f"{where}.{name}")
    aims = [name for name in AIMS if options.get(name) is not None]
    if len(aims) > 1:
        raise InvalidInputError(f"{where}.{aims[1]}: is given beside {where}.{aims[0]}; give one of them")


def check_form(kind: Any, value: object, place: str) -> None:
    """Raise unless a value that stands at a place has the form of a type, as `mistake_of` tells."""
    mistake = mistake_of(kind, value, place)
    if mistake is not None:
        raise InvalidInputError(mistake)


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
            raise InvalidInputError(f"base_url: ends in {ending}, which the server appends; leave it out")


def check_headers(headers: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for name, value in headers.items():
        where, low = "headers" if looks_like_a_key(name) else f"headers.{shown(name)[1:-1]}", name.lower()
        check_header_name(where, name)
        if _KEY_HEADER.search(low.replace("_", "-")) or looks_like_a_key(value):
            raise InvalidInputError(
                f"{where}: holds a key; keys come from the environment: name the variable in api_key_env, "
                f"and the header in api_key_header where it is not the format's own"
            )
        if not _PRINTABLE.match(value):
            raise InvalidInputError(f"{where}: expected printable ASCII on one line")
        if low in seen:
            raise InvalidInputError(f"{where}: stands twice but for case; give it once")
        seen.add(low)


def check_header_name(where: str, name: str) -> None:
    if not _HEADER.match(name):
        raise InvalidInputError(f"{where}: expected a header's name, such as x-team: letters, digits and -")
    if name.lower() in _OWN_HEADERS:
        raise InvalidInputError(f"{where}: is set by the server; leave it out")


def check_key_header(name: str, headers: Mapping[str, str], variable: str | None) -> None:
    if looks_like_a_key(name) or not _HEADER.match(name):
        raise InvalidInputError("api_key_header: expected a header's name, such as api-key, not a key")
    check_header_name("api_key_header", name)
    if variable is None:
        raise InvalidInputError("api_key_header: needs api_key_env, the environment variable that holds the key")
    if name.lower() in {other.lower() for other in headers}:
        raise InvalidInputError("api_key_header: stands in headers too; give it once")


def check_digests(where: str, digests: Iterable[str]) -> None:
    for digest in digests:
        if not _SHA256.match(digest):
            raise InvalidInputError(f"{where}: expected 64 hex digits each, what `printf %s KEY | sha256sum` prints")
        if digest == _OF_NO_KEY:
            raise InvalidInputError(
                f"{where}: is the digest of an empty text, which `printf %s $KEY | sha256sum` prints where KEY is not set; "
                "give that of a key"
            )


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
        raise InvalidInputError(f"{where}: {named} is not set; it holds the key: export it before the server starts")
    if key != key.strip() or not _PRINTABLE.match(key):
        raise InvalidInputError(
            f"{where}: {named} holds a key with a blank or a line break at an end, or not of printable ASCII"
        )
    return key


def check_body(body: Mapping[Any, Mapping[str, Any]]) -> None:
    for form, given in body.items():
        for name, value in given.items():
            if not _is_json(value):
                raise InvalidInputError(
                    f"body.{form}.{name}: expected what JSON can hold: no .nan or .inf, and whole numbers below 2^63"
                )
            if name in SET_PER_REQUEST:
                raise InvalidInputError(
                    f"body.{form}.{name}: is set for each request by its client and the server; leave it out"
                    + (", and see the upstream's model" if name == "model" else "")
                )


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def check_hosts(hosts: Iterable[str]) -> None:
    for host in hosts:
        if not re.match(r"[^\s/]+\Z", host) or host.count(":") == 1:
            raise InvalidInputError("hosts: expected names alone, such as router.example.com, without http:// and port")


@contextlib.contextmanager
def placed(place: str) -> Iterator[None]:
    """Put before what an error says the key, or the flag, that brought it about: `shadow.bundle`, say."""
    try:
        yield
    except IprError as error:
        error.args = (f"{place}: {error}",)
        raise


@contextlib.contextmanager
def as_record_errors() -> Iterator[None]:
    """Name what a recorder says of its arguments as a config does."""
    try:
        yield
    except IprError as error:
        name, _, why = str(error).partition(": ")
        if name == "to":
            text = f"path: {why}; expected a file that can be written, in a folder that is there"
        else:
            text = f"{name}: {why}" if name in RECORDS else f"key: {error}"
        error.args = (f"records.{text}",)
        raise


@contextlib.contextmanager
def as_service_errors() -> Iterator[None]:
    """Name what an engine says of its options as a config does."""
    try:
        yield
    except InvalidInputError as error:
        inside = "" if str(error).startswith(SERVICE) else "limits."
        raise InvalidInputError(f"server.service.{inside}{error}") from None


def check_service(service: Mapping[str, Any]) -> None:
    for name, value in service.items():
        if name not in SERVICE:
            raise InvalidInputError(f"service.{name}: is no key here; known: {', '.join(SERVICE)}")
        where = f"service.{name}"
        if name == "cache_entries" and (type(value) is not int or value < 0):
            raise InvalidInputError(f"{where}: expected a whole number >= 1, or 0 for no cache")
        if name == "budget_us":
            check_form(float | None, value, where)
            if value is not None and not 0 < number(where, value) <= MOST_US:
                raise InvalidInputError(f"{where}: expected microseconds > 0 and at most {MOST_US:g}")
        if name == "fallback" and mistake_of(tuple[str, ...] | str | None, value, where) is not None:
            raise InvalidInputError(f"{where}: expected a candidate's name, or a list of several")
        if name == "limits" and mistake_of(Mapping[str, Any] | None, value, where) is not None:
            raise InvalidInputError(f"{where}: expected an object, such as {{max_batch: 32}}")
