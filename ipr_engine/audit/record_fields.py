"""This file writes and parses fields of a record's line: floats as bits, what a request needs, the resolved policy, what is sealed.

Every function that parses raises ValueError for a value that no recorder writes.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import MOST_TOKENS, shown
from ipr_engine.bundle import Performance, Price, PriceTier
from ipr_engine.bundle.task_names import AskedTask, task_problem
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import ABOUT
from ipr_engine.policy.rules import EVERY_RULE, Coefficients
from ipr_engine.prompts import Needs, kind_of

Float32s = npt.NDArray[np.float32]

_RESOLVED = ("rule", "tau", "slack", "worth", "alpha_hi", "alpha_lo", "offset", "allowed")
_SEALED = ("key", "nonce", "data")
UNPREDICTED = "candidate"  # the fallback that predicts nothing: what it answers cannot be decided again
DEGRADED = ("static", UNPREDICTED)
HASH, ISA = re.compile(r"[0-9a-f]{64}"), re.compile(r"[a-z0-9_]{1,16}")
_HEX_16 = re.compile(r"[0-9a-f]{16}")
_TIERS = re.compile(r"[a-z0-9_]{1,16}(\+[a-z0-9_]{1,16})*")
_PROFILE = re.compile(r".+:[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A `Resolved` is a policy as it was compiled for the bundle that decided: what its terms came to there.

    Attributes:
        rule, tau, slack, worth: as of Policy.
        coefficients: of the heads that decided.
        allowed: names, in bundle order.
    """

    rule: str
    tau: float
    slack: float
    worth: float
    coefficients: Coefficients
    allowed: tuple[str, ...]

    @classmethod
    def of(cls, policy: Policy, *, by_second: bool) -> Resolved:
        """Return what a policy came to. by_second: the second heads of a two-tier bundle decided."""
        second = policy.second if by_second else None
        return cls(
            rule=policy.rule,
            tau=policy.tau,
            slack=policy.slack,
            worth=policy.worth,
            coefficients=policy.coefficients if second is None else second.coefficients,
            allowed=policy.allowed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that `parse_resolved` reads."""
        made = self.coefficients
        values = (self.rule, self.tau, self.slack, self.worth, made.alpha_hi, made.alpha_lo, made.offset)
        return dict(zip(_RESOLVED, (*values, list(self.allowed)), strict=True))


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A `Sealed` is what a record keeps under its owner's key, by AES-256-GCM. key: the key's id."""

    key: str
    nonce: bytes
    data: bytes

    def to_json(self) -> dict[str, str]:
        """Return the JSON form that `parse_sealed` reads, bytes as base64."""
        text = (base64.b64encode(part).decode() for part in (self.nonce, self.data))
        return dict(zip(_SEALED, (self.key, *text), strict=True))


def parse_resolved(document: Any, names: Sequence[str]) -> Resolved:
    """Return the resolved policy of a line. names: the record's candidates."""
    require(isinstance(document, dict) and document.keys() == set(_RESOLVED), "policy", document)
    *numbers, allowed = (document[name] for name in _RESOLVED[1:])
    require(isinstance(document["rule"], str) and document["rule"] in EVERY_RULE, "policy.rule", document["rule"])
    # json.loads gives NaN and infinity, which are no JSON: neither is within this bound.
    plain = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in numbers)
    require(plain, "policy", numbers)
    require(isinstance(allowed, list) and set(allowed) <= set(names), "policy.allowed", allowed)
    tau, slack, worth, *made = (float(value) for value in numbers)
    return Resolved(
        rule=document["rule"],
        tau=tau,
        slack=slack,
        worth=worth,
        coefficients=Coefficients(*made),
        allowed=tuple(allowed),
    )


def parse_sealed(document: Any) -> Sealed | None:
    """Return what is sealed in a line; None where nothing is."""
    if document is None:
        return None
    reported = isinstance(document, dict) and document.keys() == set(_SEALED)
    require(reported and all(isinstance(value, str) for value in document.values()), "sealed", document)
    require(is_form(_HEX_16, document["key"]), "sealed.key", document["key"])
    nonce, data = (base64.b64decode(document[name], validate=True) for name in _SEALED[1:])
    return Sealed(key=document["key"], nonce=nonce, data=data)


def parse_made_by(document: Mapping[str, Any], models: int) -> dict[str, Any]:
    """Return what ran the encoder, counted a line's own tokens and measured its support, where the line says so."""
    made: dict[str, Any] = {}
    if "encoder_tier" in document:
        require(is_form(_TIERS, document["encoder_tier"]), "encoder_tier", document["encoder_tier"])
        made["encoder_tier"] = document["encoder_tier"]
    if "tokenizers" in document:
        keys = document["tokenizers"]
        reported = isinstance(keys, list) and len(keys) == models
        require(reported and all(key is None or is_form(_PROFILE, key) for key in keys), "tokenizers", keys)
        made["tokenizers"] = tuple(keys)
    if "centroids" in document:
        require(is_form(_HEX_16, document["centroids"]), "centroids", document["centroids"])
        made["centroids"] = document["centroids"]
    if "bill_given" in document:
        require(document["bill_given"] is True, "bill_given", document["bill_given"])
        made["bill_given"] = True
    return made


def parse_task(document: Any) -> AskedTask:
    """Return the task of a line."""
    require(isinstance(document, dict) and document.keys() == set(AskedTask._fields), "task", document)
    require(task_problem(document["name"]) is None, "task.name", document["name"])
    require(type(document["known"]) is bool, "task.known", document["known"])
    return AskedTask(document["name"], document["known"])


def is_form(form: re.Pattern[str], value: object) -> bool:
    """Return whether a value is a text of this form."""
    return isinstance(value, str) and form.fullmatch(value) is not None


_BARE = {"answers": 1, "images": 0}  # of needs, written where they are more


def needs_json(needs: Needs) -> dict[str, Any]:
    """Return the JSON form of what a request needs, answers and images only where they say something."""
    more = {name: getattr(needs, name) for name, bare in _BARE.items() if getattr(needs, name) != bare}
    return {"features": dict(needs.features), "max_output_tokens": needs.max_output_tokens, **more}


def parse_needs(document: Any) -> Needs:
    """Return what a request needs, of its JSON form."""
    stated = {"features", "max_output_tokens"}
    reported = isinstance(document, dict) and stated <= document.keys() <= {*stated, *_BARE}
    require(reported, "needs", document)
    features, most = document["features"], document["max_output_tokens"]
    named = isinstance(features, dict) and all(isinstance(part, str) for part in features.values())
    require(named, "features", features)
    require(most is None or whole(most), "max_output_tokens", most)
    more = {name: document.get(name, bare) for name, bare in _BARE.items()}
    for name, value in more.items():
        require(whole(value) and value >= _BARE[name], name, value)
    return Needs(features, most, **more)


def whole(value: Any) -> bool:
    """Return whether a value is a number of tokens."""
    return type(value) is int and 0 <= value <= MOST_TOKENS


def require(holds: bool, name: str, got: object) -> None:
    """Raise ValueError that names the field and what came, unless `holds`.

    Of a number it tells the number, of anything else the kind alone: a damaged line may hold a prompt.
    """
    if not holds:
        refuse(name, shown(got) if type(got) in (bool, int, float) else kind_of(got))


def refuse(name: str, reported: str) -> NoReturn:
    """Raise ValueError that names the field and what came."""
    raise ValueError(f"{name}: got {reported}")


def canonical(document: Mapping[str, Any]) -> str:
    """Return the one JSON text that a checksum or a seal is taken of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def crc32(text: str) -> str:
    """Return the CRC-32 of a text in 8 hex digits."""
    return f"{zlib.crc32(text.encode()):08x}"


def bits(values: npt.ArrayLike) -> str:
    """Return base64 of little-endian float32: every bit, NaN and infinity included."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def floats(text: object, name: str, count: int | None = None) -> Float32s:
    """Return the (numbers,) of such base64; `count` is how many there must be."""
    data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    # 4 bytes a float32; no record has none.
    if len(data) % 4 or not data or (count is not None and len(data) != 4 * count):
        refuse(name, f"{len(data)} bytes of float32" + ("" if count is None else f" for {count} numbers"))
    return np.frombuffer(data, "<f4").astype(np.float32)


# Options whose values are names that only a bundle knows: carried_over.py keeps unknown ones out of its errors.
OF_BUNDLE = tuple(name for name, option in ABOUT.items() if option.form == "names")
_PRICE, _TIER, _FIGURES = ({field.name for field in fields(kind)} for kind in (Price, PriceTier, Performance))


def check_options(document: Any, candidates: Sequence[str]) -> None:
    """Raise ValueError for terms that no recorder writes. candidates: the record's."""
    require(isinstance(document, dict), "terms", document)
    # Counted, not named: a damaged line may hold anything in their place.
    unknown = len(document.keys() - ABOUT.keys())
    if unknown:
        refuse("terms", f"{unknown} that no policy of this release has")
    known = {name.casefold() for name in candidates}
    for name, value in document.items():
        require(OF_FORM[ABOUT[name].form](value, known, ABOUT[name].choices), f"terms.{name}", value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _are_candidates(value: Any, known: set[str]) -> bool:
    return _is_names(value) and {name.casefold() for name in _listed(value)} <= known


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _of_candidates(rows: Any, known: set[str], is_row: Callable[[Any], bool]) -> bool:
    return isinstance(rows, dict) and {name.casefold() for name in rows} <= known and all(map(is_row, rows.values()))


def _is_prices(value: Any, known: set[str]) -> bool:
    return isinstance(value, dict) and _of_candidates(value.get("prices"), known, _is_price)


def _is_price(row: Any) -> bool:
    if isinstance(row, list):
        return all(map(_is_number, row))
    if not isinstance(row, dict):
        return False
    plain = {key: value for key, value in row.items() if key != "tiers"}
    tiers = row.get("tiers", [])
    return _has_numbers(plain, _PRICE) and isinstance(tiers, list) and all(_has_numbers(one, _TIER) for one in tiers)


def _has_numbers(row: Any, keys: set[str]) -> bool:
    """Return whether this is an object with some of these keys, each a number or null.

    A `basis` is a text, which no error repeats.
    """
    if not isinstance(row, dict) or not row.keys() <= keys or not isinstance(row.get("basis", ""), str):
        return False
    return all(value is None or _is_number(value) for key, value in row.items() if key != "basis")


# Form of an option -> whether a value has it; `known` are the record's candidates, `choices` the option's own.
OF_FORM: Mapping[str | None, Callable[[Any, set[str], tuple[str, ...]], bool]] = {
    "number": lambda value, known, choices: _is_number(value),
    "number or infinity": lambda value, known, choices: _is_number(value) or value == "infinity",
    "flag": lambda value, known, choices: type(value) is bool,
    "text": lambda value, known, choices: isinstance(value, str) and value in choices,
    "names": lambda value, known, choices: _is_names(value),
    "candidates": lambda value, known, choices: _are_candidates(value, known),
    # A rule for who answers may stand in a candidate's place.
    "candidate": lambda value, known, choices: isinstance(value, str) and value.casefold() in {*known, *choices},
    "prices": lambda value, known, choices: _is_prices(value, known),
    "weights": lambda value, known, choices: _has_numbers(value, set(choices)),
    "figures": lambda value, known, choices: _of_candidates(value, known, lambda row: _has_numbers(row, _FIGURES)),
}
