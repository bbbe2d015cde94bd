"""Build the embedded default bundle:

    python -m studies.default_bundle.recipe --outcomes DIR --encoder-model FOLDER --out ROOT

Distil the token table (or take one with --table: that of an earlier default bundle, say, to keep its bits), fit heads
on the training split of every source given (`train`), evaluate them on the test splits (`evaluate_engine`), and write
the bundle again with a model card of these figures. What it is made of stands in the constants and in
candidates.json; the test splits decide nothing. Same input, same bytes on one machine.

The embedded bundle was made with `--keep-heads`: its heads, support and path rows are those of the one before it, which was fitted when
Platt's maps were fitted otherwise. `--embed` puts the bundle into this checkout's package. All of it, as it stands in the package:

    python -m studies.default_bundle.recipe --outcomes DIR/zeroeval --table ipr_engine/default_bundle --keep-heads --out ROOT \
        --card docs/model-card.md --embed
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ipr_engine._files import writable_file
from ipr_engine.audit.owner_key import KEY_FILE, PUBLISHED
from ipr_engine.bundle import Bundle, with_extra_files
from ipr_engine.bundle.checks import require_day
from ipr_engine.bundle.load import CURRENT
from ipr_engine.bundle.spec import MANIFEST
from ipr_engine.bundle.write import require_root
from ipr_engine.data import Outcomes, load_outcomes
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.evaluate import evaluate_engine
from ipr_engine.evaluation.evaluation_inputs import EvaluationOptions
from ipr_engine.measures.resampling import DRAWS
from ipr_engine.training.distill import distill
from ipr_engine.training.train import train
from ipr_engine.training.train_options import BundleTarget, EncoderChoice, FitOptions, TrainingData
from studies.default_bundle.embed import embed
from studies.default_bundle.kept_heads import with_kept_heads
from studies.default_bundle.model_card import SourceFacts, render
from studies.default_bundle.read_in_full_width import in_full_width

ESTIMATOR = "caps"  # chosen on training prompts of several sources: docs/studies/estimators.md
OPTIONS: Mapping[str, Any] = MappingProxyType({})
INTERCEPTS = False  # several sources are parts of one traffic
FOLD_WIDTH = True  # a prompt in full width is read as it is in ASCII; where there is none, every bit stays
CARD = "MODEL_CARD.md"  # in the bundle's folder
CANDIDATES = Path(__file__).parent / "candidates.json"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
ENCODER_LICENCE = "Apache-2.0"
SEED = 0
CREATED = "2026-11-24"  # fixed, so that the same input gives the same hash; --created overrides


def build(
    outcomes: Sequence[Path],
    out: Path,
    *,
    encoder_model: str | None = None,
    table: Path | None = None,
    keep_heads: bool = False,
    created: str = CREATED,
    draws: int = DRAWS,
    allow_constant: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> Path:
    """Build and activate the bundle under `out`; returns its folder.

    Args:
        outcomes: folders of outcome data with splits "train" and "test", tokens and costs; beside each, stats.json may say
            its repository, commit, licence and what its numbers mean. The first is what token ratios and intercepts refer to.
        encoder_model, table: a sentence-transformers folder or hub id to distil; or a folder that `distill` wrote, or a bundle
            that this recipe wrote, whose table is taken as it is: one of both.
        keep_heads: take the heads, support and path rows of `table` too, then a bundle that was fitted on these very outcomes.
        created: YYYY-MM-DD. draws: of the bootstrap. allow_constant: see `train`; the
            card then names the constant heads.
    Raises:
        InvalidInputError: an argument, or what `train` and `evaluate_engine` say of outcomes and candidates.
        BackendUnavailableError: the extra [train] or [eval] is missing.
    """
    if (encoder_model is None) == (table is None):
        raise InvalidInputError("encoder_model, table: expected one of both")
    require_day("created", created)
    require_root("out", out)
    before: Bundle | None = None
    with tempfile.TemporaryDirectory() as scratch:
        if table is None:
            progress("distilling the token table ...")
            table = distill(str(encoder_model), Path(scratch) / "table", seed=SEED)
        elif (table / CURRENT).is_file() or (table / MANIFEST).is_file():
            before = Bundle.load(table)
            table = _table_of(before, Path(scratch) / "table")
        encoder, choice = (
            _encoder_record(table),
            EncoderChoice(folders=table, fold_width=FOLD_WIDTH, conversation="recency"),
        )
        loaded = [load_outcomes(folder) for folder in outcomes]
        if keep_heads:
            if before is None:
                raise InvalidInputError(
                    "keep_heads: expected a bundle of this recipe as table, got a folder or a model"
                )
            prompts = _fitted_on(before, outcomes, loaded)
            made_of = with_kept_heads(before, choice, prompts, Path(scratch) / "bundles")
        else:
            made_of = train(
                TrainingData(outcomes=list(outcomes), candidates=CANDIDATES, intercepts=INTERCEPTS, encoder=choice),
                BundleTarget(root=Path(scratch) / "bundles", name="default", created=created, key=PUBLISHED),
                fit=FitOptions(estimator=ESTIMATOR, options=OPTIONS, seed=SEED, allow_constant=allow_constant),
                progress=progress,
            ).folder
        engine = Engine.load(made_of)
        evaluated, judged = [], EvaluationOptions(draws=draws, seed=SEED)
        for source in loaded:
            progress(f"evaluating on {source.source} ...")
            evaluated.append(evaluate_engine(engine, source, options=judged, progress=progress).figures)
        facts = [facts_of(folder, source) for folder, source in zip(outcomes, loaded, strict=True)]
        command = _command(outcomes, "--table" if encoder_model is None else "--encoder-model", keep_heads)
        widths = [in_full_width(engine.bundle, source.source, source.of_split("test").prompts) for source in loaded]
        text = render(evaluated, facts, engine.bundle, encoder, command, widths)
        made = {
            "command": command,
            "sources": [source_provenance(folder, fact) for folder, fact in zip(outcomes, facts, strict=True)],
            "encoder": encoder,
            "versions": {"numpy": np.__version__},
            **({"heads_kept_of": before.hash} if keep_heads and before is not None else {}),
        }
        provenance = {**engine.bundle.provenance, "default_bundle": made}
        folder = with_extra_files(engine.bundle, {CARD: text.encode()}, provenance=provenance, root=out)
        if not (out / KEY_FILE).exists():
            shutil.copyfile(PUBLISHED, out / KEY_FILE)
        return folder


def _table_of(bundle: Bundle, folder: Path) -> Path:
    """Copy the token table of a bundle that this recipe wrote, as `distill` left it."""
    made = bundle.provenance.get("default_bundle")
    spec = bundle.encoder(bundle.quality_heads.encoder)
    if spec.kind != "static" or not isinstance(made, dict):
        raise InvalidInputError(f"table: expected a bundle that this recipe wrote, {bundle.hash[:12]} is another")
    folder.mkdir()
    for name in ("table", "tokenizer", "config"):
        shutil.copy(spec.files[name], folder)
    (folder / "distill.json").write_text(json.dumps(made["encoder"]), encoding="utf-8")
    return folder


def _fitted_on(bundle: Bundle, outcomes: Sequence[Path], loaded: Sequence[Outcomes]) -> list[str]:
    """Return the training prompts of the outcomes, from which the bundle was fitted."""
    made = bundle.provenance["default_bundle"]["sources"]
    files = [
        source_provenance(folder, facts_of(folder, of))["files_sha256"]
        for folder, of in zip(outcomes, loaded, strict=True)
    ]
    if [source["files_sha256"] for source in made] != files:
        raise InvalidInputError("keep_heads: expected the outcomes that the bundle was fitted on, got other files")
    return [prompt for source in loaded for prompt in source.of_split("train").prompts]


def _command(outcomes: Sequence[Path], encoder: str, keep_heads: bool) -> str:
    given = " ".join(f"--outcomes {folder.name}" for folder in outcomes)
    kept = " --keep-heads" if keep_heads else ""
    return f"python -m studies.default_bundle.recipe {given} {encoder} FOLDER{kept} --out ROOT"


def _encoder_record(table: Path) -> dict[str, Any]:
    """Return what distill() wrote down, with the hub's name and licence where the weights have ENCODER_SHA256."""
    path = table / "distill.json"
    if not path.is_file():
        raise InvalidInputError(f"table: expected a folder that distill() wrote, {path.name} is missing")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["source_weights_sha256"] == ENCODER_SHA256:
        return {**record, "source": ENCODER, "licence": ENCODER_LICENCE}
    return {**record, "licence": "not stated"}


def facts_of(folder: Path, source: Outcomes, *, split: str | None = "test") -> SourceFacts:
    """Return what a source says of itself in stats.json. split: whose prompts are counted by task; None counts all."""
    path = folder / "stats.json"
    stats = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    keys = {"repository": "repo", "commit": "commit", "licence": "licence"}
    said = {name: str(stats.get(key, "not stated")) for name, key in keys.items()}
    meanings = {name: str(stats.get(name, "not stated")) for name in ("quality", "tokens", "cost")}
    counted = source if split is None else source.of_split(split)
    datasets = {name: counted.datasets.count(name) for name in sorted(set(counted.datasets)) if name}
    return SourceFacts(name=source.source, datasets=datasets, **said, **meanings)


def source_provenance(folder: Path, facts: SourceFacts) -> dict[str, Any]:
    """Return a source's provenance, which names no path of the machine."""
    files = sorted(path for path in folder.iterdir() if path.stem in ("prompts", "outcomes") and path.is_file())
    return {
        "name": facts.name,
        "repository": facts.repository,
        "commit": facts.commit,
        "licence": facts.licence,
        "files_sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--outcomes",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder of outcome data; repeatable",
    )
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--encoder-model", metavar="FOLDER", help=f"folder or hub id of {ENCODER}")
    encoder.add_argument(
        "--table", type=Path, metavar="FOLDER", help="a folder that distill() wrote, or a bundle of this recipe"
    )
    parser.add_argument(
        "--keep-heads", action="store_true", help="keep the heads, support and path rows of --table too"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="receives <hash>/ and CURRENT")
    parser.add_argument("--embed", action="store_true", help="put it into this checkout's package, too")
    parser.add_argument("--created", default=CREATED, help="date written into the bundle (default: %(default)s)")
    parser.add_argument("--card", type=Path, metavar="FILE", help="also write the model card here")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--allow-constant", action="store_true", help="deliver constant heads, named in the card")
    given = parser.parse_args(arguments)
    if given.card is not None:
        given.card.parent.mkdir(parents=True, exist_ok=True)
        writable_file(given.card, "card")
    folder = build(
        given.outcomes,
        given.out,
        encoder_model=given.encoder_model,
        table=given.table,
        keep_heads=given.keep_heads,
        created=given.created,
        draws=given.draws,
        allow_constant=given.allow_constant,
        progress=lambda message: print(message, file=sys.stderr, flush=True),
    )
    if given.card is not None:
        shutil.copyfile(folder / CARD, given.card)
    if given.embed:
        embed(folder, CURRENT)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder.name}  {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
