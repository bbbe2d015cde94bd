"""`two_tiers` joins two bundles of the same candidates: the first's heads decide, the second's again where the gap is small."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ipr_engine.bundle.checks import require_day, require_text
from ipr_engine.bundle.encoder_source import (
    AnySource,
    ConcatenatedSource,
    EncoderSource,
    SurfaceSource,
    TaskSource,
    TransformerSource,
)
from ipr_engine.bundle.fitted_entries import HeadsSource, heads_sha256
from ipr_engine.bundle.load import Bundle
from ipr_engine.bundle.origin import CONSTANT, FIRST_ALONE, PRICE_DATES, constant_of, prior_of
from ipr_engine.bundle.price import price_numbers
from ipr_engine.bundle.reliability import RELIABILITY, RELIABILITY_SECOND
from ipr_engine.bundle.spec import Candidate, EncoderSpec, EscalationSpec, HeadsSpec, PathRows
from ipr_engine.bundle.write import BundleParts, require_root, write_bundle
from ipr_engine.errors import InvalidInputError

SECOND = "second"


def two_tiers(
    first: Bundle,
    second: Bundle,
    *,
    gap: float,
    root: str | os.PathLike[str],
    name: str | None = None,
    created: str | None = None,
    provenance: Mapping[str, Any],
    activate: bool = True,
) -> Path:
    """Write a two-tier bundle (docs/two-tiers.md) and return its folder.

    Candidates, prices, token ratios and support are those of `first`, a candidate's performance that of either which states it;
    calibration maps are not kept, as they are of one tier.
    Path rows hold both tiers' predictions where the two were fitted on the same prompts with one seed; else they are those of
    `first`, hold for the first tier alone, and provenance["path_rows"] says why.

    Args:
        first: decides every prompt: a static encoder, say. second: decides again: a transformer's, alone or beside a table.
        gap: in quality units, >= 0: a first decision whose gap is below it is made again.
        name, created: by default those of `first`.
    Raises:
        InvalidInputError: the bundles differ in candidates, prices, performance or outputs, or one has two tiers already.
        BundleError: what `Bundle.load` would say of the result.
    """
    require_root("root", root)
    if name is not None:
        require_text("name", name)
    if created is not None:
        require_day("created", created)
    _check_alike(first, second)
    encoders, read_by_second = _encoders(first, second)
    heads = [_heads(first.quality_heads, first.quality_heads.encoder), _heads(second.quality_heads, read_by_second)]
    # Both bundles come of the same command and call their heads alike: the second ones get another id.
    heads[1] = replace(heads[1], id=SECOND if heads[0].id != SECOND else f"{SECOND}_tier")
    path, alone = _path_rows(first, second, [heads_sha256(head) for head in heads])
    extra: dict[str, Path | bytes] = dict(first.extra_files)
    if RELIABILITY in second.extra_files:
        extra[RELIABILITY_SECOND] = second.extra_files[RELIABILITY]
    return write_bundle(
        root,
        BundleParts(
            name=first.name if name is None else name,
            created=first.created if created is None else created,
            candidates=_candidates(first, second),
            encoders=encoders,
            heads=heads,
            prices=first.prices,
            support=first.support,
            unsupported=first.unsupported,
            escalation=EscalationSpec(heads=heads[1].id, gap=gap),
            path_rows=path,
            provenance={
                # What `ipr eval` and price days read; all else of both bundles is kept whole below.
                **{key: value for key, value in first.provenance.items() if key in ("sources", PRICE_DATES)},
                **_marks(first, second),
                **provenance,
                **({} if alone is None else {FIRST_ALONE: alone}),
                "first": {"hash": first.hash, "name": first.name, "provenance": dict(first.provenance)},
                "second": {"hash": second.hash, "name": second.name, "provenance": dict(second.provenance)},
            },
            extra_files=extra,
        ),
        activate=activate,
    )


def _path_rows(first: Bundle, second: Bundle, heads: list[str]) -> tuple[PathRows | None, str | None]:
    """Return the rows of both tiers, or of the first alone and why; None without any.

    Rows have no id: that two draws are of the same prompts is told by what they hold.
    """
    rows, again = first.path_rows, second.path_rows
    if rows is None:
        return None, None
    if again is None:
        why: str | None = "the second bundle has no path rows"
    elif first.quality_heads.fitted_on.prompt_ids_sha256 != second.quality_heads.fitted_on.prompt_ids_sha256:
        why = "the bundles were not fitted on the same prompts"
    elif _seed(first) != _seed(second):
        why = f"the bundles were fitted with seeds {_seed(first)} and {_seed(second)}"
    elif missing := again.without_rows(rows.candidates):
        why = f"the second bundle has no path rows of {', '.join(missing)}"
    # Equal outcomes in equal order: the rows are of the same prompts.
    elif not np.array_equal(rows.outcome, again.of(rows.candidates).outcome):
        why = "the bundles' path rows do not hold the same outcomes in the same order"
    else:
        why = None
    if again is None or why is not None:
        return replace(rows, again_quality=None, again_tokens_out=None, heads=(heads[0],)), why
    same = again.of(rows.candidates)
    return replace(rows, again_quality=same.quality, again_tokens_out=same.tokens_out, heads=tuple(heads)), None


def _seed(bundle: Bundle) -> object:
    """Return the seed that a bundle was fitted with; None where its provenance does not say."""
    settings = bundle.provenance.get("settings")
    return settings.get("seed") if isinstance(settings, Mapping) else None


def _marks(first: Bundle, second: Bundle) -> dict[str, Any]:
    """Return what is marked in either bundle: candidates that were added, priors among them, and constant heads."""
    noted = [(bundle, note) for bundle in (second, first) if isinstance(note := bundle.provenance.get("added"), dict)]
    added = [
        (prior_of(bundle, name) is not None, name, note) for bundle, notes in noted for name, note in notes.items()
    ]
    of_second = {name: f"{reason} (second heads)" for name, reason in constant_of(second).items()}
    # Of two notes that of a prior stands: one of the tiers has no outcomes of the candidate.
    marks = {"added": {name: note for _, name, note in sorted(added, key=itemgetter(0))}}
    marks[CONSTANT] = {**of_second, **constant_of(first)}
    return {key: mark for key, mark in marks.items() if mark}


def _check_alike(first: Bundle, second: Bundle) -> None:
    """Raise InvalidInputError where the two bundles cannot be joined, and say what to do."""
    for which, bundle in (("first", first), ("second", second)):
        if bundle.escalation is not None:
            raise InvalidInputError(f"{which}: {bundle.hash[:12]} has two tiers already; join bundles of one tier each")
    if set(first.names) != set(second.names):
        alone = sorted(set(first.names) ^ set(second.names))
        raise InvalidInputError(f"second: expected the candidates of the first bundle; only one has {', '.join(alone)}")
    differ = [n for n in first.names if price_numbers(first.prices.prices[n]) != price_numbers(second.prices.prices[n])]
    if differ:
        raise InvalidInputError(
            f"second: expected the prices of the first bundle, {', '.join(differ)} cost otherwise; set them with `ipr set-prices`"
        )
    outputs = [sorted(bundle.quality_heads.outputs) for bundle in (first, second)]
    if outputs[0] != outputs[1]:
        raise InvalidInputError(
            f"second: expected heads that predict {', '.join(outputs[0])} as the first ones do, got {', '.join(outputs[1])}"
        )


def _candidates(first: Bundle, second: Bundle) -> list[Candidate]:
    """Return the candidates of the first bundle, each with its figures from whichever bundle states them."""
    of_second = {candidate.name: candidate.performance for candidate in second.candidates}
    both = [c for c in first.candidates if c.performance is not None and of_second[c.name] is not None]
    differ = [candidate.name for candidate in both if candidate.performance != of_second[candidate.name]]
    if differ:
        raise InvalidInputError(
            f"second: expected the performance of the first bundle, that of {', '.join(differ)} is another; set it with "
            "`ipr set-performance`"
        )
    return [replace(c, performance=c.performance or of_second[c.name]) for c in first.candidates]


def _encoders(first: Bundle, second: Bundle) -> tuple[list[AnySource], str]:
    """Return the encoders that both heads read, and the id that the second heads' encoder has among them.

    Parts come before the encoders that are made of them.
    """
    sources: dict[str, AnySource] = {}
    of_identity: dict[str, str] = {}

    def put(bundle: Bundle, id: str) -> str:
        spec = bundle.encoder(id)
        # An encoder that both read is put once.
        if spec.identity in of_identity:
            return of_identity[spec.identity]
        parts = tuple(put(bundle, part) for part in spec.parts)
        # Both bundles may call different encoders alike.
        free = next(name for name in (id, *(f"{id}_{n}" for n in range(2, 99))) if name not in sources)
        sources[free] = encoder_source(spec, free, parts)
        of_identity[spec.identity] = free
        return free

    put(first, first.quality_heads.encoder)
    id = put(second, second.quality_heads.encoder)
    return list(sources.values()), id


def encoder_source(spec: EncoderSpec, id: str, parts: tuple[str, ...]) -> AnySource:
    """Return what writes an encoder of a loaded bundle into another, under this id.

    parts: of a concatenated one, the ids of its parts there.
    """
    if spec.kind == "concatenated":
        return ConcatenatedSource(id=id, parts=parts)
    if spec.kind == "task":
        return TaskSource(id=id, names=spec.tasks)
    if spec.kind == "surface":
        return SurfaceSource(id=id, lexicon=spec.files["lexicon"])
    assert spec.pooling is not None  # of every other kind
    assert spec.normalize is not None
    if spec.kind == "static":
        files = spec.files
        return EncoderSource(
            id=id,
            table=files["table"],
            tokenizer=files["tokenizer"],
            config=files["config"],
            max_tokens=spec.max_tokens,
            pooling=spec.pooling,
            head_tokens=spec.head_tokens,
            fold_width=spec.fold_width,
        )
    # A transformer that is only referenced has no files to take along.
    folder = spec.files["manifest"].parent if spec.files else None
    return TransformerSource(
        id=id,
        dim=spec.dim,
        max_tokens=spec.max_tokens,
        pooling=spec.pooling,
        normalize=spec.normalize,
        dtype=spec.dtype,
        identity=spec.identity,
        name=spec.name or id,
        revision=spec.revision,
        files={} if folder is None else {r: (p.relative_to(folder).as_posix(), p) for r, p in spec.files.items()},
    )


def _heads(heads: HeadsSpec, encoder: str) -> HeadsSource:
    """Return what writes heads of a loaded bundle into another, over this encoder."""
    kept = heads.fitted_on.prompt_hashes
    return HeadsSource(
        id=heads.id,
        encoder=encoder,
        outputs=heads.outputs,
        activation=heads.activation,
        candidates=heads.candidates,
        rule_constants=heads.rule_constants,
        fitted_on=replace(heads.fitted_on, prompt_hashes=None),
        tensors=heads.tensors,
        prompt_hashes=None if kept is None else {name: np.asarray(v, np.uint64) for name, v in load_file(kept).items()},
        conversation=heads.conversation,
    )
