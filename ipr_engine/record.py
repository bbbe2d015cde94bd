"""Decision records: one JSON object a line that holds all a decision was made of, bit for bit (docs/design.md section 9).

recorder.py routes and writes them; replay.py decides them again.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ipr_engine.decide import CAUSE, STATUS
from ipr_engine.decision import Decisions
from ipr_engine.errors import InvalidInputError, RecordError
from ipr_engine.prompts import Needs, as_json
from ipr_engine.ranges import MOST_TOKENS
from ipr_engine.terms import Terms, terms_from_json, terms_to_json

SCHEMA_VERSIONS = (1, 2)  # 2: what the request needs, own_tokens; the least is written
Float32s = npt.NDArray[np.float32]
RecordId = str | int | None

_HASHES = ("bundle", "encoder", "heads", "prices")
_DECISION = ("model", "index", "status", "cause", "quality", "cost_usd", "tokens_out", "threshold", "gap", "support")
_KEYS = frozenset(
    (
        "schema_version",
        *_HASHES,
        "isa",
        "candidates",
        "x",
        "billed_tokens",
        "truncated",
        "tokens_out",
        "extra_usd",
        "terms",
        "decision",
    )
)
_NEEDS = "needs"  # of schema_version 2
_OWN = "own_tokens"  # of schema_version 2, only where a candidate names its tokenizer
_OPTIONAL = frozenset(("id", "prompt"))  # outside the checksum: they may be cut from a log


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What was decided: the choice, and every number with its bits; quality, cost_usd, tokens_out are (models,) float32.

    support: None also where second heads decided: it is not of the embedding that they read.
    """

    model: str | None
    index: int
    status: str
    cause: str
    quality: Float32s
    cost_usd: Float32s
    tokens_out: Float32s
    threshold: np.float32
    gap: np.float32
    support: np.float32 | None

    @classmethod
    def of(cls, decisions: Decisions, row: int) -> Outcome:
        decision = decisions[row]
        return cls(
            model=decision.model,
            index=decision.index,
            status=decision.status,
            cause=decision.cause,
            quality=decisions.qualities[row],
            cost_usd=decisions.costs_usd[row],
            tokens_out=decisions.tokens_out[row],
            threshold=decisions.threshold[row],
            gap=decisions.gap[row],
            support=None if decisions.support is None or decision.escalated else decisions.support[row],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One decision with all it was made of.

    Attributes:
        x: (dim,) float32, the embedding; encoder: identity of the encoder that made it.
        billed_tokens, truncated: as of Decision.
        tokens_out, extra_usd: (models,) float32 where the caller gave them, else None.
        terms: the policy's, as `Engine.policy` takes them.
        candidates: names in the bundle's order, the order of every (models,) array.
        bundle, heads, prices: hashes of bundle.json, of the heads' weights, and of the price file.
        isa: the instruction set that decided.
        outcome: what was decided.
        needs: what the request asks of a candidate, None for nothing.
        own_tokens: (models,) float32, input tokens by each candidate's own count; None where no candidate names its tokenizer.
        id, prompt: only where given and asked for.
    """

    x: Float32s
    billed_tokens: int
    truncated: bool
    tokens_out: Float32s | None
    extra_usd: Float32s | None
    terms: Terms
    candidates: tuple[str, ...]
    bundle: str
    encoder: str
    heads: str
    prices: str
    isa: str
    outcome: Outcome
    needs: Needs | None = None
    own_tokens: Float32s | None = None
    id: RecordId = None
    prompt: Any = None

    def to_line(self) -> bytes:
        """The record as one line of JSON, newline included."""
        outcome = self.outcome
        body = {
            "schema_version": 1 if self.needs is None and self.own_tokens is None else 2,
            **({} if self.needs is None and self.own_tokens is None else {_NEEDS: _needs_json(self.needs)}),
            **({} if self.own_tokens is None else {_OWN: _bits(self.own_tokens)}),
            **{name: getattr(self, name) for name in _HASHES},
            "isa": self.isa,
            "candidates": list(self.candidates),
            "x": _bits(self.x),
            "billed_tokens": self.billed_tokens,
            "truncated": self.truncated,
            "tokens_out": None if self.tokens_out is None else _bits(self.tokens_out),
            "extra_usd": None if self.extra_usd is None else _bits(self.extra_usd),
            "terms": terms_to_json(self.terms),
            "decision": {
                **{name: getattr(outcome, name) for name in ("model", "index", "status", "cause")},
                **{name: _bits(getattr(outcome, name)) for name in ("quality", "cost_usd", "tokens_out")},
                **{name: _bits(getattr(outcome, name)) for name in ("threshold", "gap")},
                "support": None if outcome.support is None else _bits(outcome.support),
            },
        }
        extra = {name: value for name in ("id", "prompt") if (value := getattr(self, name)) is not None}
        try:
            text = _canonical(body)
            tail = json.dumps({"crc32": _crc32(text), **extra}, default=as_json)
        except (TypeError, ValueError, RecursionError) as error:
            name = "prompt" if self.prompt is not None else "policy"
            raise InvalidInputError(f"{name}: expected what JSON can hold, to keep it in a record ({error})") from None
        return f"{text[:-1]},{tail[1:]}\n".encode()

    @classmethod
    def from_line(cls, line: bytes | str) -> Record:
        """The record of one line.

        Raises:
            RecordError: the line is cut, changed, of another version, or no record at all.
        """
        document, problem = None, ""
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:  # whose `doc` is the line: it must not become a context
            problem = str(error)
        if problem:
            raise RecordError(f"expected one JSON object, got {len(line)} bytes that are none ({problem})")
        if not isinstance(document, dict) or "schema_version" not in document:
            raise RecordError('expected a decision record, an object with "schema_version", got something else')
        if document["schema_version"] not in SCHEMA_VERSIONS:
            version, known = document["schema_version"], " or ".join(map(str, SCHEMA_VERSIONS))
            raise RecordError(f"expected schema_version {known}, got {version!r}; use the release that wrote it")
        given, told = document.pop("crc32", None), {key: document.pop(key, None) for key in _OPTIONAL}
        if given != _crc32(_canonical(document)):
            raise RecordError(f"expected content of crc32 {given}, got another: the line was damaged or edited")
        try:
            return _parse(document, **told)
        except (ValueError, TypeError, KeyError) as error:  # a checksum that holds, on something we did not write
            raise RecordError(f"expected the fields of schema_version {document['schema_version']}: {error}") from None


def _parse(document: Mapping[str, Any], id: RecordId, prompt: Any) -> Record:
    known = _KEYS if document["schema_version"] == 1 else _KEYS | {_NEEDS} | (document.keys() & {_OWN})
    _require(document.keys() == known, "keys", document.keys() ^ known)
    made = document["decision"]
    _require(isinstance(made, dict) and made.keys() == set(_DECISION), "decision", made)
    names = document["candidates"]
    _require(isinstance(names, list) and all(isinstance(name, str) for name in names), "candidates", names)
    _require(type(made["index"]) is int and -1 <= made["index"] < len(names), "index", made["index"])
    chosen = None if made["index"] < 0 else names[made["index"]]
    _require(made["model"] == chosen, "model", made["model"])
    _require(made["status"] in STATUS and made["cause"] in CAUSE, "status, cause", (made["status"], made["cause"]))
    for name in (*_HASHES, "isa"):
        _require(isinstance(document[name], str), name, document[name])
    billed, truncated = document["billed_tokens"], document["truncated"]
    _require(type(billed) is int and 0 <= billed <= MOST_TOKENS, "billed_tokens", billed)
    _require(type(truncated) is bool, "truncated", truncated)
    _require(isinstance(document["terms"], dict), "terms", document["terms"])
    models = len(names)
    support = made["support"]
    return Record(
        x=_floats(document["x"], "x"),
        billed_tokens=billed,
        truncated=truncated,
        tokens_out=None if (tokens := document["tokens_out"]) is None else _floats(tokens, "tokens_out", models),
        extra_usd=None if (extra := document["extra_usd"]) is None else _floats(extra, "extra_usd", models),
        terms=terms_from_json(document["terms"]),
        candidates=tuple(names),
        isa=document["isa"],
        **{name: document[name] for name in _HASHES},
        outcome=Outcome(
            model=made["model"],
            index=made["index"],
            status=made["status"],
            cause=made["cause"],
            quality=_floats(made["quality"], "quality", models),
            cost_usd=_floats(made["cost_usd"], "cost_usd", models),
            tokens_out=_floats(made["tokens_out"], "tokens_out", models),
            threshold=_floats(made["threshold"], "threshold", 1)[0],
            gap=_floats(made["gap"], "gap", 1)[0],
            support=None if support is None else _floats(support, "support", 1)[0],
        ),
        needs=_needs(document[_NEEDS]) if document.get(_NEEDS) is not None else None,
        own_tokens=_floats(document[_OWN], _OWN, models) if _OWN in document else None,
        id=id,
        prompt=prompt,
    )


def _needs_json(needs: Needs | None) -> dict[str, Any] | None:
    return None if needs is None else {"features": dict(needs.features), "max_output_tokens": needs.max_output_tokens}


def _needs(document: Any) -> Needs:
    _require(isinstance(document, dict) and document.keys() == {"features", "max_output_tokens"}, _NEEDS, document)
    features, most = document["features"], document["max_output_tokens"]
    told = isinstance(features, dict) and all(isinstance(part, str) for part in features.values())
    _require(told, "features", features)
    _require(most is None or (type(most) is int and 0 <= most <= MOST_TOKENS), "max_output_tokens", most)
    return Needs(features, most)


def _require(holds: bool, name: str, got: object) -> None:
    if not holds:
        _fail(name, got)


def _fail(name: str, got: object) -> NoReturn:
    raise ValueError(f"{name}: got {str(got)[:100]}")


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _crc32(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _bits(values: npt.ArrayLike) -> str:
    """base64 of little-endian float32: every bit, NaN and infinity included."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def _floats(text: object, name: str, count: int | None = None) -> Float32s:
    data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    if len(data) % 4 or not data or (count is not None and len(data) != 4 * count):
        _fail(name, f"{len(data)} bytes of float32" + ("" if count is None else f" for {count} numbers"))
    return np.frombuffer(data, "<f4").astype(np.float32)
