"""`add_model` adds a candidate to a bundle, from its outcomes or, without any, from candidates that it is likely to be like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine._C import count_texts
from ipr_engine._files import writable_folder
from ipr_engine.audit.owner_key import OwnerKey, keys_beside
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.edit import NewCandidate, Refit, require_one_tier, with_candidate
from ipr_engine.bundle.head_rows import FOREST, of_candidates, row_of, with_row
from ipr_engine.bundle.reliability import RELIABILITY, read_reliability, reliability_bins, reliability_bytes
from ipr_engine.bundle.write import require_root
from ipr_engine.data import Outcomes, embed_prompts, key_of_hashes, load_outcomes
from ipr_engine.data.task_rows import task_rows
from ipr_engine.encoders.heeded import refuse_unheeded
from ipr_engine.encoders.registry import make_encoder
from ipr_engine.encoders.task_columns import mark_tasks
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.prediction import constancy
from ipr_engine.measures.resampling import one_thread
from ipr_engine.prompts.parsed import bill_floors
from ipr_engine.training.add.candidate_prior import (
    add_prior,
    most_similar,
    prior_row,
)
from ipr_engine.training.add.candidate_row import Row, fit_row
from ipr_engine.training.add.imputed_quality import fit_on_table, own_tells_more
from ipr_engine.training.add.interface import (
    Added,
    AddTarget,
    AskedEntry,
    Evidence,
    PriorFrom,
    asked_entry,
    hashes_with,
    judged_rows,
    members_of,
    note_of,
    old_quality,
)
from ipr_engine.training.add.path_column import Newcomer, grown_path_rows, own_rows
from ipr_engine.training.add.refresh import QUALITY, held_out, refresh
from ipr_engine.training.add.with_and_without import routing_help
from ipr_engine.training.fitted_parts import with_tokenizers
from ipr_engine.training.training_inputs import FEWEST_JUDGED

Array = npt.NDArray[np.float64]
Progress = Callable[[str], None]


NO_OUTCOMES, MOST_SIMILAR = Evidence(), PriorFrom()


def add_model(
    bundle: Path | str,
    candidates: Path | str,
    target: AddTarget,
    *,
    name: str | None = None,
    evidence: Evidence = NO_OUTCOMES,
    prior: PriorFrom = MOST_SIMILAR,
    progress: Progress = lambda message: None,
) -> Added:
    """Add a candidate; the encoder and every existing row stay as they are, so old qualities keep their bits.

    Args:
        bundle: root or folder.
        candidates: JSON as for `train`; the entry of `name`, or the one entry that the bundle does not have.
    Raises:
        KeyMismatchError: outcomes are given, and the hashes are of another key than what is at hand.
        InvalidInputError: an argument, the candidates' file or the outcomes are not as above.
        BundleError: the bundle is damaged, or the new one would be.
        BackendUnavailableError: the extra [train] is missing.
    """
    if evidence.outcomes is not None and prior.stated:
        raise InvalidInputError("like, family: they stand in for outcomes, and outcomes are given; leave one out")
    base = Bundle.load(bundle)
    if target.root is None:
        require_root("out", base.path.parent)
    if evidence.cache is not None:
        writable_folder(evidence.cache, "cache")
    require_one_tier(base)
    if evidence.encoder_options is not None:
        refuse_unheeded(base, evidence.encoder_options)
    entry = asked_entry(Path(candidates), base, name)
    # Beside outcomes a similar one lends its output tokens alone.
    priors = evidence.outcomes is not None
    similar = None if prior.stated else most_similar(base, entry.candidate, entry.price, priors=priors)
    if evidence.outcomes is None:
        members = members_of(base, prior.like, prior.family) if similar is None else (similar,)
        return add_prior(base, entry, members, target, progress)
    assert similar is not None  # nothing is stated beside outcomes, see above
    keys = keys_beside(base.path.parent, evidence.key)
    key_of_hashes(base.quality_heads.fitted_on, keys)  # refused before the work
    return _from_outcomes(base, entry, similar, evidence, keys, target, progress)


def _from_outcomes(
    base: Bundle,
    entry: AskedEntry,
    similar: str,
    evidence: Evidence,
    keys: Sequence[OwnerKey],
    target: AddTarget,
    progress: Progress,
) -> Added:
    """Add a candidate from its outcomes; `similar` stands in for the output tokens where these are too few."""
    candidate, price, source, ratios = entry
    assert evidence.outcomes is not None
    outcomes, split, seed = load_outcomes(evidence.outcomes), evidence.split, evidence.seed
    cache, consistency = evidence.cache, evidence.consistency
    heads = base.quality_heads
    called = source if isinstance(source, str) else source.get(outcomes.source, candidate.name)
    part = outcomes if split is None else outcomes.of_split(split)
    rows = judged_rows(part, called, candidate.name)
    column = rows.models.index(called)
    measures = (rows.quality, rows.output_tokens, rows.input_tokens)
    quality, tokens, input_tokens = (measure[:, column] for measure in measures)
    with one_thread():
        progress(f"embedding {len(rows)} prompts of {outcomes.source} ...")
        encoder = make_encoder(base, heads.encoder, evidence.encoder_options)
        columns = base.encoder(heads.encoder).task_columns

        def embed(of: Outcomes) -> tuple[Array, Array]:
            made = embed_prompts(encoder, of.prompts, cache=cache, progress=progress)
            x = mark_tasks(columns, made.x, task_rows(base, of, progress))
            return np.asarray(x, np.float64), bill_floors(of.prompts, made.billed_tokens).astype(np.float64)

        x, billed = embed(rows)
        texts, at_home = count_texts(list(rows.prompts)), np.ones(len(x), np.bool_)
        asked_of = rows.question_keys
        (candidate,) = with_tokenizers(
            [candidate], ratios, texts, billed, input_tokens[:, None], asked_of, at_home, progress
        )
        enough = (~np.isnan(tokens)).sum() >= FEWEST_JUDGED  # else `similar` says how much it writes
        progress("fitting its row, the others stay as they are ...")

        table = None
        if consistency is None:  # a refresh is judged on prompts held out, which no imputed outcome may know of
            table = fit_on_table(base, part, called, lambda of: embed(of)[0], with_tokens=enough, seed=seed)
        known = tokens if enough else None
        fit = fit_row(heads.tensors, heads.activation, x, quality, known, rows.question_keys, seed=seed)
        if table is not None and own_tells_more(fit.out_of_fold_quality, table.row.out_of_fold_quality, quality):
            progress(
                f"its own outcomes are predicted better without the {table.imputed} imputed ones, which are left out"
            )
            table = None
        if table is not None:
            fit = table.row
            progress(f"{candidate.name} is imputed on {table.imputed} prompts more, from the others' outcomes there")
        newcomer = Newcomer(
            candidate=candidate,
            part=part,
            called=called,
            rows=rows,
            x=x,
            billed=billed,
            tokens=known,
            like=base.names.index(similar),
            keys=keys,
        )

        own = own_rows(base, newcomer, embed, seed)
        path_rows, path = grown_path_rows(base, newcomer, own, seed)
        refreshed, helps = None, None
        leaves: Row = {}
        if consistency is None:  # a refresh moves the heads that the others are predicted by
            progress(f"does {candidate.name} help? routing with it and without ...")
            helps = routing_help(base, newcomer, price, own, seed=seed)
        if consistency is not None:
            progress("refreshing the trunk ...")
            # The refresh is judged on the prompts held out, so the row it starts from is fitted without them.
            seen = ~held_out(rows.question_keys, seed)
            asked = [question for question, kept in zip(rows.question_keys, seen, strict=True) if kept]
            start = fit_row(heads.tensors, heads.activation, x[seen], quality[seen], None, asked, seed=seed).tensors
            leaves = {name: row for name, row in start.items() if name in FOREST}
            deciding = {name: heads.tensors[name] for name in heads.tensors if name in (*QUALITY, *FOREST)}
            refreshed = refresh(
                with_row(deciding, start),
                heads.activation,
                x,
                quality,
                old_quality(rows, base),
                rows.question_keys,
                consistency=consistency,
                seed=seed,
            )
    tensors: Row = dict(fit.tensors)
    changed: dict[str, npt.NDArray[np.float32]] | None = None
    if refreshed is not None and refreshed.epochs:
        # The new candidate's row is the last; the shared trunk has no rows.
        # A refresh leaves the leaves that it started from: those of a fit on all prompts would be of another row.
        tensors |= row_of(refreshed.tensors, -1) | leaves
        changed = of_candidates(refreshed.tensors, range(len(base.names)))
        if path is not None:
            path_rows, path = (
                None,
                "none are left: the refreshed heads are not those that predicted them; fit anew with `ipr train`",
            )
    if path is not None:
        progress(f"path rows: {path}")
    tokens_from: tuple[str, ...] = ()
    if "tokens" in heads.outputs and not enough:
        tokens_from = (similar,)
        progress(f"{candidate.name} has too few output tokens to fit; it is taken to write as much as {similar}")
        tensors |= {key: row for key, row in prior_row(heads, tokens_from).items() if key.startswith("len_")}
    constant = constancy(fit.out_of_fold_quality, quality, rows.question_keys).reason
    if constant is not None:
        progress(f"constant head of {candidate.name}: {constant}; more prompts may tell it apart")
    note = {
        "source": outcomes.source,
        "called": called,
        "split": split,
        "prompts": len(rows),
        "imputed": 0 if table is None else table.imputed,
        "prompt_ids_sha256": sha256("\n".join(rows.prompt_ids).encode()).hexdigest(),
        "tokens_from": list(tokens_from),
        "settings": fit.settings,
        "layer_of": None if fit.host is None else base.names[fit.host],
    }
    if helps is not None:
        note["help"] = helps.to_json()
    if refreshed is not None:
        note["refreshed"] = {"consistency": consistency, **refreshed.facts(base.names)}
    tables = read_reliability(base)
    extra = {}
    if changed is not None and tables is not None:  # of qualities that are no more
        extra = {RELIABILITY: reliability_bytes({})}
    elif tables is not None:
        bins = reliability_bins(fit.out_of_fold_quality, quality)
        extra = {RELIABILITY: reliability_bytes({**tables, candidate.name: bins})}
    folder = with_candidate(
        base,
        NewCandidate(
            candidate=candidate,
            price=price,
            rows=tensors,
            note=note_of(note, target.created),
            constant=constant,
            called=source,
        ),
        Refit(
            prompt_hashes=hashes_with(base, rows if table is None else table.rows, keys),
            tensors=changed,
            path_rows=path_rows,
            extra_files=extra or {},
        ),
        root=target.root,
        created=target.created,
        activate=target.activate,
    )
    predicted = fit.out_of_fold_quality
    return Added(
        folder,
        candidate.name,
        len(rows),
        (),
        tokens_from,
        float(quality.mean()),
        float(predicted.mean()),
        float(np.square(predicted - quality).mean()),
        refreshed,
        constant,
        path=path,
        imputed=0 if table is None else table.imputed,
        help=helps,
    )
