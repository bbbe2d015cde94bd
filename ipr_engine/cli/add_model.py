"""`ipr add-model` and `ipr remove-model` make a bundle from another, everything else in it bit for bit the same."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ipr_engine.cli.add_collected import add_options, check_options, run_plan
from ipr_engine.cli.options import add_cache_option, add_encoder_options, add_key_option, load_options


def add_parser(subparsers: Any) -> None:
    add = subparsers.add_parser(
        "add-model",
        help="add a candidate to a bundle, from its outcomes or as a prior (extra [train])",
        description="Fit a row for a new candidate beside the bundle's own, which stay as they are: old qualities keep their bits. "
        "Without --outcomes a prior stands in: the rows of the most similar candidate (of its family, nearest in price), of "
        "--like, or the mean of --family; the bundle says so, and so do `ipr info` and `ipr explain`.",
    )
    add.add_argument("--candidates", metavar="FILE", help="JSON as for `ipr train`: the new one's facts; or --plan")
    add.add_argument("--name", help="which of the file's entries (default: the one the bundle does not have)")
    add.add_argument("--outcomes", metavar="DIR", help="prompts.* and outcomes.* in which the candidate is judged")
    add.add_argument("--split", default="train", help="split to fit on, 'all' for every prompt (default train)")
    add.add_argument("--like", metavar="NAME", help="no outcomes: start as this candidate")
    add.add_argument("--family", metavar="NAME", help="no outcomes: start as the mean of this family")
    add.add_argument(
        "--consistency",
        type=float,
        metavar="WEIGHT",
        help="refresh the shared trunk too, holding old qualities by the paper's consistency loss of this weight; what the "
        "old candidates forget is measured and told (needs torch)",
    )
    add.add_argument("--seed", type=int, default=0, help="of the folds (default 0)")
    add.add_argument(
        "--created", default=time.strftime("%Y-%m-%d"), help="date written into the bundle (default today)"
    )
    add_key_option(add, "the one that the bundle's prompt hashes are under, by default owner.key beside it")
    add_cache_option(add)
    add_encoder_options(add)
    _add_places(add)
    add_options(add)
    add.set_defaults(run=run_add)

    remove = subparsers.add_parser(
        "remove-model",
        help="take a candidate out of a bundle",
        description="Write a bundle without this candidate; the others' rows, prices and decisions among themselves stay.",
    )
    remove.add_argument("name", help="the candidate")
    _add_places(remove)
    remove.set_defaults(run=run_remove)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, metavar="PATH", help="bundle root or folder")
    parser.add_argument(
        "--out", metavar="ROOT", help="bundle root to write to, made current (default: the bundle's own)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run_add(arguments: argparse.Namespace) -> int:
    check_options(arguments)
    if arguments.plan is not None:
        return run_plan(arguments)
    import numpy as np

    from ipr_engine.bundle import Bundle
    from ipr_engine.training.add.add_model import add_model
    from ipr_engine.training.add.interface import Evidence, PriorFrom

    added = add_model(
        arguments.bundle,
        arguments.candidates,
        created=arguments.created,
        name=arguments.name,
        out=arguments.out,
        evidence=Evidence(
            outcomes=arguments.outcomes,
            split=None if arguments.split == "all" else arguments.split,
            consistency=arguments.consistency,
            seed=arguments.seed,
            encoder_options=load_options(arguments),
            cache=arguments.cache,
            key=arguments.key,
        ),
        prior=PriorFrom(like=arguments.like, family=arguments.family),
        progress=lambda message: print(f"ipr add-model: {message}", file=sys.stderr, flush=True),
    )
    if arguments.json:
        facts = {key: value for key, value in vars(added).items() if key not in ("folder", "refreshed")}
        names = Bundle.load(added.folder).names[:-1]
        moved = None if added.refreshed is None else added.refreshed.facts(names)
        print(json.dumps({"bundle": added.folder.name, **facts, "refreshed": moved}))
        return 0
    print(added.folder)
    if added.quality is None:
        level = "" if added.lowered_to is None else f", lowered to mean quality {added.lowered_to:.2f} by its price"
        print(f"{added.candidate}: prior from {', '.join(added.prior_from)}{level}, no outcomes of its own")
    else:
        print(
            f"{added.candidate}: {added.prompts} prompts"
            + (f" and {added.imputed} imputed" if added.imputed else "")
            + f", out of fold: quality {added.quality:.3f}, "
            f"predicted {added.predicted:.3f}, Brier {added.brier:.3f}"
            + (f"; constant head: {added.constant}" if added.constant else "")
        )
    if added.path is not None:
        print(f"path rows: {added.path}")
    if added.refreshed is not None:
        r = added.refreshed
        known = r.forgotten[np.isfinite(r.forgotten)]
        lost = (
            f", their Brier score rose by {known.mean():+.4f}" if len(known) else ", their outcomes are not known here"
        )
        print(
            f"trunk refreshed, {r.epochs} epochs; held out: loss {r.loss_before:.4f} -> {r.loss_after:.4f}; the others' qualities "
            f"moved by {r.moved.mean():.4f} on average, {r.most:.4f} at most{lost}"
        )
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.edit import without_candidate

    folder = without_candidate(Bundle.load(arguments.bundle), arguments.name, root=arguments.out)
    left = Bundle.load(folder).names
    if arguments.json:
        print(json.dumps({"bundle": folder.name, "removed": arguments.name, "candidates": list(left)}))
    else:
        print(f"{folder}\nleft: {', '.join(left)}")
    return 0
