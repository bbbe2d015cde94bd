"""A decision record is a line of JSON that holds what a decision was made of, bit for bit (docs/formats.md).

A record is private by default: no embedding, no prompt, and no figures of a prompt of few words, unless an owner's key
seals them. recorder.py routes and writes records; replay.py decides them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ipr_engine._validate import shown
from ipr_engine.audit.exploration import Exploration, parse_exploration
from ipr_engine.audit.outcome import FIGURES, UNDECIDED, Outcome, parse_figures, parse_outcome
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record_fields import (
    DEGRADED,
    HASH,
    ISA,
    UNPREDICTED,
    Float32s,
    Resolved,
    Sealed,
    bits,
    canonical,
    check_options,
    crc32,
    floats,
    is_form,
    needs_json,
    parse_made_by,
    parse_needs,
    parse_resolved,
    parse_sealed,
    parse_task,
    require,
    whole,
)
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.errors import InvalidInputError, KeyMismatchError, RecordError
from ipr_engine.policy.policy_spec import Options, options_from_json, options_to_json
from ipr_engine.prompts import Needs, as_json, kind_of

SCHEMA_VERSIONS = (1, 2, 3)  # 1: x in clear; 2: what the request needs too; 3: private, with the resolved policy
RecordId = str | int | None

# Keys of a line: hashes of what decided, what it decided on, and the sets that each schema has.
_HASHES = ("bundle", "encoder", "heads", "prices")
_MADE_OF = ("isa", "candidates", "billed_tokens", "truncated", "tokens_out", "extra_usd", "terms", "decision")
_OLD = frozenset(("schema_version", *_HASHES, *_MADE_OF, "x"))
_KEYS = frozenset(
    ("schema_version", *_HASHES, *_MADE_OF, "needs", "policy", "max_output_tokens", "nonfinite", "sealed")
)
# Of schema 3, only where there are any; a brief record's are sealed with its figures.
_PRIVATE = ("own_tokens", "cached_tokens")
# Of schema 3, only where they say something.
_MORE = frozenset(
    (
        *_PRIVATE,
        "encoder_tier",
        "tokenizers",
        "centroids",
        "bill_given",
        "tokens_in_given",
        "degraded",
        "exploration",
        "task",
    )
)
_OPTIONAL = frozenset(("id", "prompt"))  # outside the checksum: they may be cut from a log


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A `Record` is one decision with what it was made of.

    Attributes:
        billed_tokens, truncated: as of Decision.
        tokens_out, extra_usd: (models,) float32 where the caller gave them, else None.
        cached_tokens: (models,) float32 where the caller gave them, those whose `cache_ttl_s` had passed as 0. In lines of builds
            that did not keep them, what they saved at the prices of then is in extra_usd.
        terms: the policy's, as `Engine.policy` takes them. policy: what they came to; None before schema 3.
        candidates: names in the bundle's order, the order of every (models,) array.
        max_output_tokens: of each candidate, as the bundle states them; None where it states none.
        nonfinite: candidates, by position, whose logit is not finite: none of them is ever chosen.
        bundle, encoder, heads, prices: hashes of bundle.json, the identity of the encoder, hashes of the heads' weights and of the
            price file.
        isa: the instruction set that decided.
        encoder_tier: what ran the transformer (`Encoder.tier`), which tier "auto" may have chosen by timing; None of a table, where the
            embedding was given, and in lines of builds that did not keep it.
        own_tokens: (models,) float32, input tokens by each candidate's own count; None where no candidate names its tokenizer and
            the caller told none, and with a brief record's figures.
        tokenizers: of each candidate, which profile counts its own tokens (`TokenProfile.key`), None for none; None of a bundle
            without any, where the bill was given, and in lines of builds that did not keep it.
        centroids: what measured the support (`SupportSpec.key`); None without centroids, and in such lines.
        bill_given: the caller gave the bill: nobody's own tokens were counted from texts.
        tokens_in_given: candidates, by position, whose own tokens the caller told; they stand on every bundle.
        outcome: what was decided; its numbers are NaN where they are withheld.
        degraded: which fallback answered past the request's deadline: "static", another engine, whose bundle and heads these are, or
            "candidate", for which nothing was predicted: figures are NaN, and it cannot be decided again. None for none.
        exploration: who was asked where chance may choose another than the policy, and with what chance; None where it may not.
        needs: what the request asks of a candidate, None for nothing.
        task: what the caller said that the prompt is for, and whether the heads that decided told it apart; None where nothing was said.
        x: (dim,) float32, the embedding, where it was asked for; of a line of schema 3 only once it is opened.
        brief: the prompt has so few words that the figures would tell them: they are sealed, or withheld where there is no key.
        withheld: these figures are not here: there was no key to seal them, or the record is not opened.
        sealed: x, prompt and figures under the owner's key.
        id, prompt: only where given and asked for.
    """

    billed_tokens: int
    truncated: bool
    tokens_out: Float32s | None
    extra_usd: Float32s | None
    terms: Options
    candidates: tuple[str, ...]
    bundle: str
    encoder: str
    heads: str
    prices: str
    isa: str
    outcome: Outcome
    policy: Resolved | None = None
    max_output_tokens: tuple[int | None, ...] | None = None
    nonfinite: tuple[int, ...] = ()
    needs: Needs | None = None
    own_tokens: Float32s | None = None
    cached_tokens: Float32s | None = None
    tokenizers: tuple[str | None, ...] | None = None
    centroids: str | None = None
    bill_given: bool = False
    tokens_in_given: tuple[int, ...] = ()
    degraded: str | None = None
    exploration: Exploration | None = None
    task: AskedTask | None = None
    encoder_tier: str | None = None
    x: Float32s | None = None
    brief: bool = False
    withheld: bool = False
    sealed: Sealed | None = None
    id: RecordId = None
    prompt: Any = None
    schema_version: int = 3

    def to_line(self, key: OwnerKey | None = None) -> bytes:
        """Return the record as one line of JSON, newline included. key: seals x, the prompt and a brief record's figures.

        Raises:
            InvalidInputError: x without a key, or a prompt or policy that JSON cannot hold.
        """
        if self.x is not None and key is None and self.sealed is None and self.schema_version >= 3:
            raise InvalidInputError("keep_x: an embedding is kept under an owner's key alone; pass key=...")
        try:
            body = self._body()
            sealed = self.sealed if key is None or self.sealed is not None else self._seal(key, canonical(body))
            if self.schema_version >= 3:
                body["sealed"] = None if sealed is None else sealed.to_json()
            clear = ("id", "prompt") if sealed is None else ("id",)
            extra = {name: value for name in clear if (value := getattr(self, name)) is not None}
            text = canonical(body)
            # What may be cut from a log comes last, outside the checksum.
            tail = json.dumps({"crc32": crc32(text), **extra}, default=as_json)
        except (TypeError, ValueError, RecursionError) as error:
            name = "prompt" if self.prompt is not None else "policy"
            raise InvalidInputError(f"{name}: expected what JSON can hold, to keep it in a record ({error})") from None
        return f"{text[:-1]},{tail[1:]}\n".encode()

    def opened(self, key: OwnerKey) -> Record:
        """Return the record with what is sealed in it; itself where nothing is.

        Raises:
            KeyMismatchError: it was sealed under another key.
            RecordError: what is sealed, or what it was sealed with, was changed.
        """
        sealed = self.sealed
        if sealed is None:
            return self
        # Told apart from a changed line, which the cipher alone could not do.
        if sealed.key != key.id:
            raise KeyMismatchError(
                f"key: the record was sealed under the key of id {sealed.key}, got that of id {key.id}; give that key"
            )
        # The body is what was authenticated: a changed line opens no more.
        plain = key.open(sealed.nonce, sealed.data, canonical(self._body()).encode())
        if plain is None:
            raise RecordError("sealed: expected what this key sealed with this record, got another: it was changed")
        kept, models = json.loads(plain), len(self.candidates)
        figures = kept.get("figures")
        # A brief record's; of any other they stand in the line.
        private: dict[str, Any] = {name: floats(kept[name], name, models) for name in _PRIVATE if name in kept}
        return replace(
            self,
            x=None if kept.get("x") is None else floats(kept["x"], "x"),
            prompt=kept.get("prompt"),
            **private,
            outcome=self.outcome if figures is None else replace(self.outcome, **parse_figures(figures, models)),
            withheld=self.withheld and figures is None,
        )

    def _seal(self, key: OwnerKey, beside: str) -> Sealed | None:
        """Return what the key seals of this record; None where nothing is to be sealed."""
        kept = {
            **({} if self.x is None else {"x": bits(self.x)}),
            **({} if self.prompt is None else {"prompt": self.prompt}),
            **({"figures": self.outcome.figures_json()} if self.brief else {}),
            **(self._private() if self.brief else {}),
        }
        if not kept:
            return None
        nonce, data = key.seal(json.dumps(kept, default=as_json).encode(), beside.encode())
        return Sealed(key=key.id, nonce=nonce, data=data)

    def _private(self) -> dict[str, str]:
        """Return the token counts that tell of a prompt, as bits."""
        return {name: bits(values) for name in _PRIVATE if (values := getattr(self, name)) is not None}

    def _body(self) -> dict[str, Any]:
        """Return the line but for what is sealed, its checksum, and what may be cut from it."""
        lacking = self.brief or self.degraded == UNPREDICTED
        figures = dict.fromkeys(FIGURES) if lacking else self.outcome.figures_json()
        body = {
            "schema_version": self.schema_version,
            **{name: getattr(self, name) for name in _HASHES},
            "isa": self.isa,
            "candidates": list(self.candidates),
            "billed_tokens": self.billed_tokens,
            "truncated": self.truncated,
            "tokens_out": None if self.tokens_out is None else bits(self.tokens_out),
            "extra_usd": None if self.extra_usd is None else bits(self.extra_usd),
            "terms": options_to_json(self.terms),
            "decision": {**self.outcome.choice_json(), **figures},
        }
        if self.schema_version < 3:
            needs = {} if self.needs is None else {"needs": needs_json(self.needs)}
            return {**body, **needs, "x": None if self.x is None else bits(self.x)}
        return {
            **body,
            **({} if self.brief else self._private()),
            **({} if self.encoder_tier is None else {"encoder_tier": self.encoder_tier}),
            **({} if self.tokenizers is None else {"tokenizers": list(self.tokenizers)}),
            **({} if self.centroids is None else {"centroids": self.centroids}),
            **({"bill_given": True} if self.bill_given else {}),
            **({"tokens_in_given": list(self.tokens_in_given)} if self.tokens_in_given else {}),
            **({} if self.degraded is None else {"degraded": self.degraded}),
            **({} if self.exploration is None else {"exploration": self.exploration.to_json()}),
            **({} if self.task is None else {"task": self.task._asdict()}),
            "needs": None if self.needs is None else needs_json(self.needs),
            "policy": None if self.policy is None else self.policy.to_json(),
            "max_output_tokens": None if self.max_output_tokens is None else list(self.max_output_tokens),
            "nonfinite": list(self.nonfinite),
        }

    @classmethod
    def from_line(cls, line: bytes | str) -> Record:
        """Return the record of one line, as `to_line` wrote it in this schema or an earlier one; `opened` tells what is sealed.

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
            got = shown(version) if type(version) is int else kind_of(version)
            raise RecordError(f"expected schema_version {known}, got {got}; use the release that wrote it")
        given, reported = document.pop("crc32", None), {key: document.pop(key, None) for key in _OPTIONAL}
        # The writer's own form of the line, so that whitespace and the order of keys do not matter.
        if given != crc32(canonical(document)):
            raise RecordError("crc32: expected that of the line's content, got another: the line was damaged or edited")
        try:
            return _parse(document, **reported)
        except (ValueError, TypeError, KeyError) as error:  # a checksum that holds, on something we did not write
            raise RecordError(f"expected the fields of schema_version {document['schema_version']}: {error}") from None


def _parse(document: Mapping[str, Any], id: RecordId, prompt: Any) -> Record:
    """Return the record of a line whose checksum holds; ValueError, TypeError or KeyError for what no recorder writes."""
    version = document["schema_version"]
    # Exactly the keys that a recorder of this schema writes.
    known = {1: _OLD, 2: _OLD | {"needs"}, 3: _KEYS | (document.keys() & _MORE)}[version]
    require(document.keys() == known, "keys", document.keys() ^ known)
    names = document["candidates"]
    require(isinstance(names, list) and all(isinstance(name, str) for name in names), "candidates", names)
    for name, form in (*((name, HASH) for name in _HASHES), ("isa", ISA)):
        require(is_form(form, document[name]), name, document[name])
    require(whole(document["billed_tokens"]), "billed_tokens", document["billed_tokens"])
    require(type(document["truncated"]) is bool, "truncated", document["truncated"])
    check_options(document["terms"], names)
    models, needs = len(names), document.get("needs")
    outcome, lacking = parse_outcome(document["decision"], names, may_lack_figures=version >= 3)
    degraded = document.get("degraded")
    require("degraded" not in document or degraded in DEGRADED, "degraded", degraded)
    require((degraded == UNPREDICTED) == (outcome.cause == UNDECIDED), "cause", outcome.cause)
    require(degraded != UNPREDICTED or lacking, "decision", document["decision"])
    brief = lacking and degraded != UNPREDICTED
    private: dict[str, Any] = {"x": floats(document["x"], "x")} if version < 3 else _of_schema_3(document, names)
    if "exploration" in document:
        private["exploration"] = parse_exploration(document["exploration"], names, outcome.index)
    if "task" in document:
        private["task"] = parse_task(document["task"])
    given = private.get("tokens_in_given")
    require(not given or brief or "own_tokens" in private, "tokens_in_given", given)
    return Record(
        schema_version=version,
        billed_tokens=document["billed_tokens"],
        truncated=document["truncated"],
        tokens_out=None if (tokens := document["tokens_out"]) is None else floats(tokens, "tokens_out", models),
        extra_usd=None if (extra := document["extra_usd"]) is None else floats(extra, "extra_usd", models),
        terms=options_from_json(document["terms"]),
        candidates=tuple(names),
        isa=document["isa"],
        **{name: document[name] for name in _HASHES},
        outcome=outcome,
        needs=None if needs is None and version != 2 else parse_needs(needs),
        brief=brief,
        withheld=lacking,
        degraded=degraded,
        **private,
        id=id,
        prompt=prompt,
    )


def _of_schema_3(document: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the fields that schema 3 alone has."""
    most = document["max_output_tokens"]
    stated = isinstance(most, list) and len(most) == len(names) and all(v is None or whole(v) for v in most)
    require(most is None or stated, "max_output_tokens", most)
    return {
        "policy": parse_resolved(document["policy"], names),
        **{name: floats(document[name], name, len(names)) for name in _PRIVATE if name in document},
        **parse_made_by(document, len(names)),
        "max_output_tokens": None if most is None else tuple(most),
        "nonfinite": _positions(document["nonfinite"], "nonfinite", len(names)),
        "tokens_in_given": _positions(document.get("tokens_in_given", []), "tokens_in_given", len(names)),
        "sealed": parse_sealed(document["sealed"]),
    }


def _positions(listed: Any, name: str, models: int) -> tuple[int, ...]:
    """Return candidates of a line, by position."""
    require(isinstance(listed, list) and all(type(m) is int and 0 <= m < models for m in listed), name, listed)
    return tuple(listed)
