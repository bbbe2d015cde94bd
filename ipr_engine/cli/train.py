"""ipr train: outcome data of one's own to a bundle."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="fit heads on outcome data and write a bundle (extra [train])",
        description="Fit a quality head and a tokens head per candidate on outcome data (docs/outcome-data.md) and write a bundle "
        "(docs/own-bundle.md). The frozen encoder is a model2vec folder, by default the embedded bundle's.",
    )
    parser.add_argument("--outcomes", required=True, metavar="DIR", help="prompts.* and outcomes.* with output tokens")
    parser.add_argument("--candidates", required=True, metavar="FILE", help="JSON: candidates, prices, features")
    parser.add_argument("--out", required=True, metavar="ROOT", help="bundle root; the new bundle becomes current")
    parser.add_argument("--encoder", metavar="DIR", help="model2vec folder, e.g. from ipr distill")
    parser.add_argument("--name", default="trained", help="name of the bundle (default trained)")
    parser.add_argument("--split", default="train", help="split to fit on, 'all' for every prompt (default train)")
    parser.add_argument(
        "--form", default="auto", help="form of the heads, or auto: chosen by cross-validation (default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of folds and centroids (default 0)")
    parser.add_argument(
        "--created", default=time.strftime("%Y-%m-%d"), help="date written into the bundle (default today)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.training.train import train

    trained = train(
        arguments.outcomes,
        arguments.candidates,
        arguments.out,
        name=arguments.name,
        created=arguments.created,
        encoder=arguments.encoder,
        split=None if arguments.split == "all" else arguments.split,
        form=arguments.form,
        seed=arguments.seed,
        progress=lambda message: print(f"ipr train: {message}", file=sys.stderr, flush=True),
    )
    columns = (trained.names, trained.quality, trained.predicted, trained.brier, trained.calibration_error)
    rows = [
        {"candidate": name, "quality": float(q), "predicted": float(p), "brier": float(b), "ece": float(e)}
        for name, q, p, b, e in zip(*columns, strict=True)
    ]
    if arguments.json:
        facts = {"bundle": trained.folder.name, "form": trained.form, "prompts": trained.prompts}
        print(json.dumps({**facts, "dropped": trained.dropped, "candidates": rows}))
        return 0
    print(f"{trained.folder}\nform {trained.form}, {trained.prompts} prompts, {trained.dropped} left out; out of fold:")
    width = max(len(name) for name in trained.names)
    print(f"{'candidate':<{width}}  quality  predicted  Brier    ECE")
    for row in rows:
        print(
            f"{row['candidate']:<{width}}  {row['quality']:7.3f}  {row['predicted']:9.3f}  {row['brier']:.3f}  {row['ece']:.3f}"
        )
    return 0
