"""Build the embedded bundle `default-2026`:

    python -m studies.default_bundle.recipe_2026 --sql DIR --japanese DIR --beside DIR --out ROOT

Heads are fitted on all prompts of two sources, SQL first, which is home; no prompt is held out, since there are few: figures are
cross-fitted, by question. The estimator is the best by nested cross-validation (`auto`), on the embedded default bundle's table and on
surface features. Prompts unlike the fitting data go to ANSWERS. Same input, same bytes on one machine.

`--embed` puts the bundle beside the embedded default one, without the files that this one holds already.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._files import writable_file
from ipr_engine.audit.owner_key import KEY_FILE, PUBLISHED
from ipr_engine.bundle import Bundle, UnsupportedDefault, with_extra_files, with_unsupported
from ipr_engine.bundle.checks import require_day
from ipr_engine.bundle.load import EMBEDDED
from ipr_engine.bundle.origin import constant_of
from ipr_engine.bundle.write import require_root
from ipr_engine.data import load_outcomes
from ipr_engine.engine import Engine
from ipr_engine.training.train import train
from ipr_engine.training.train_options import BundleTarget, EncoderChoice, FitOptions, TrainingData
from studies.default_bundle.card_2026 import SupportShare, render_card
from studies.default_bundle.embed import embed
from studies.default_bundle.recipe import CARD, facts_of, source_provenance

NAME = "default-2026"
CANDIDATES = Path(__file__).parent / "candidates_2026.json"
ENCODERS = ("default", "surface")
# Half of the Japanese prompts have full width forms. A fit with folding showed no gain, and `auto` left two heads constant.
FOLD_WIDTH = False
ESTIMATOR = "auto"
# The best single candidate of the home source's prompts, at a middling price. Of other traffic nobody's quality is known.
ANSWERS = "gemini-3.5-flash"
MIN_SUPPORT = 0.02  # as docs/usage.md names it of the default bundle; the card tells what it sends away
SEED = 0
CREATED = "2026-11-30"  # fixed, so that the same input gives the same hash; --created overrides

Progress = Callable[[str], None]


def build(
    sql: Path,
    japanese: Path,
    out: Path,
    *,
    beside: Sequence[Path] = (),
    estimator: str = ESTIMATOR,
    allow_constant: bool = False,
    created: str = CREATED,
    progress: Progress = lambda message: None,
) -> Path:
    """Build and activate the bundle under `out`; returns its folder.

    Args:
        sql, japanese: folders of outcome data with tokens, and stats.json (`recipe.build`).
        beside: folders of other traffic, for the card's shares of unsupported prompts; nothing is fitted on them.
        estimator, allow_constant: of the heads, as `train` takes them. created: YYYY-MM-DD.
    Raises:
        InvalidInputError: an argument, or what `train` says of outcomes and candidates.
        BackendUnavailableError: the extra [train] is missing.
    """
    require_day("created", created)
    require_root("out", out)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)

        def fitted(outcomes: Sequence[Path], candidates: Path, place: str, *, constant: bool) -> Bundle:
            fit = FitOptions(estimator=estimator, seed=SEED, standing=True, allow_constant=constant)
            data = TrainingData(
                outcomes=list(outcomes),
                candidates=candidates,
                split=None,
                encoder=EncoderChoice(folders=ENCODERS, fold_width=FOLD_WIDTH, conversation="all"),
            )
            target = BundleTarget(root=root / place, name=NAME, created=created, key=PUBLISHED)
            return Bundle.load(train(data, target, fit=fit, progress=progress).folder)

        both = fitted([sql, japanese], CANDIDATES, "both", constant=allow_constant)
        progress(f"the candidates of {japanese.name} alone ...")
        # Not delivered: what it is worth is told in the card, constant heads too.
        alone = fitted([japanese], _judged_in(japanese, root / "japanese.json"), "japanese", constant=True)
        said = UnsupportedDefault(min_support=MIN_SUPPORT, model=ANSWERS)
        bundle = Bundle.load(with_unsupported(both, said, root=root / "said"))
        loaded = [load_outcomes(folder) for folder in (sql, japanese)]
        shares = _unsupported(Engine.load(bundle.path), [*loaded, *map(load_outcomes, beside)], fitted_on=len(loaded))
        facts = [facts_of(folder, source, split=None) for folder, source in zip((sql, japanese), loaded, strict=True)]
        command = _command(sql, japanese, beside)
        text = render_card(bundle, facts, alone, shares, command)
        made = {
            "command": command,
            "sources": [source_provenance(folder, fact) for folder, fact in zip((sql, japanese), facts, strict=True)],
            "japanese_alone": {"constant": sorted(constant_of(alone)), **alone.provenance["standing"]},
            "unsupported": [share.to_json() for share in shares],
            "versions": {"numpy": np.__version__},
        }
        provenance = {**bundle.provenance, "default_bundle": made}
        folder = with_extra_files(bundle, {CARD: text.encode()}, provenance=provenance, root=out)
        if not (out / KEY_FILE).exists():
            shutil.copyfile(PUBLISHED, out / KEY_FILE)
        return folder


def _judged_in(source: Path, path: Path) -> Path:
    """Write the candidates that a source has judged, as `train` takes them."""
    document = json.loads(CANDIDATES.read_text(encoding="utf-8"))
    kept = [entry for entry in document["candidates"] if source.name in entry["source"]]
    path.write_text(json.dumps({**document, "candidates": kept}), encoding="utf-8")
    return path


def _unsupported(engine: Engine, sources: Sequence[Any], *, fitted_on: int) -> list[SupportShare]:
    """Return how many prompts of each source have too little support; the first `fitted_on` were fitted on."""
    policy = engine.policy(tau=0.2)
    found = []
    for number, source in enumerate(sources):
        causes = [decision.cause for decision in engine.route_many(source.prompts, policy)]
        found.append(SupportShare(source.source, number < fitted_on, len(causes), causes.count("unsupported")))
    return found


def _command(sql: Path, japanese: Path, beside: Sequence[Path]) -> str:
    others = "".join(f" --beside {folder.name}" for folder in beside)
    given = f"--sql {sql.name} --japanese {japanese.name}{others}"
    return f"python -m studies.default_bundle.recipe_2026 {given} --out ROOT"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, what in (("--sql", "outcomes on SQL: home"), ("--japanese", "outcomes on Japanese chat")):
        parser.add_argument(flag, type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="other traffic: the card tells how much is unsupported; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="receives <hash>/ and CURRENT")
    parser.add_argument("--created", default=CREATED, help="date written into the bundle (default: %(default)s)")
    parser.add_argument("--card", type=Path, metavar="FILE", help="also write the model card here")
    parser.add_argument("--embed", action="store_true", help="put it into this checkout's package, too")
    given = parser.parse_args(arguments)
    if given.card is not None:
        writable_file(given.card, "card")
    folder = build(
        given.sql,
        given.japanese,
        given.out,
        beside=given.beside,
        created=given.created,
        progress=lambda message: print(message, file=sys.stderr, flush=True),
    )
    if given.card is not None:
        shutil.copyfile(folder / CARD, given.card)
    place = embed(folder, EMBEDDED[NAME]) if given.embed else folder
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    print(f"{folder.name}  {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
