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

import orjson

from ipr_engine._validate import number
from ipr_engine.bundle.load import EMBEDDED
from ipr_engine.documents.typed_document import looks_like_a_key, mistake_of, told
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.policy.policy_spec import ABOUT, DEFAULTS
from ipr_engine.policy.rules import AIMS

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
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_OF_NO_KEY = sha256(b"").hexdigest()


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


def check_options(where: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in DEFAULTS:
            raise InvalidInputError(f"{where}.{name}: is no option of a policy; known: {', '.join(DEFAULTS)}")
        check_form(_FORMS[ABOUT[name].form or "figures"], value, f"{where}.{name}")
    aims = [name for name in AIMS if options.get(name) is not None]
    if len(aims) > 1:
        raise InvalidInputError(f"{where}.{aims[1]}: is given beside {where}.{aims[0]}; give one of them")


def check_exploration(share: float, recorded: bool) -> None:
    """Raise unless a share of requests may be asked of a candidate that chance draws. recorded: whether decisions are."""
    if not 0 <= share < 1:
        raise InvalidInputError(f"exploration: expected a share in [0, 1), got {told(str(share))}")
    if share and not recorded:
        raise InvalidInputError(
            "exploration: needs records: without them nobody would know with what chance a candidate was asked; give records.path"
        )


def check_form(kind: Any, value: object, place: str) -> None:
    """Raise unless a value that stands at a place has the form of a type, as `mistake_of` tells."""
    mistake = mistake_of(kind, value, place)
    if mistake is not None:
        raise InvalidInputError(mistake)


def check_digests(where: str, digests: Iterable[str]) -> None:
    for digest in digests:
        if not _SHA256.match(digest):
            raise InvalidInputError(f"{where}: expected 64 hex digits each, what `printf %s KEY | sha256sum` prints")
        if digest == _OF_NO_KEY:
            raise InvalidInputError(
                f"{where}: is the digest of an empty text, which `printf %s $KEY | sha256sum` prints where KEY is not set; "
                "give that of a key"
            )


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


def shadow_by_name(shadow: object, path: str | os.PathLike[str]) -> object:
    """Return a shadow's entry with the name of an embedded bundle as it was written, not as a path that the file's folder lacks."""
    bundle = shadow.get("bundle") if isinstance(shadow, dict) else None
    if isinstance(shadow, dict) and isinstance(bundle, str) and not os.path.exists(bundle):
        folder, name = os.path.split(bundle)
        if name in EMBEDDED and folder == os.path.dirname(os.path.abspath(path)):
            return {**shadow, "bundle": name}
    return shadow
