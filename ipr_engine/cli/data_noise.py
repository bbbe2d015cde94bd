"""`ipr data noise` says how much of an outcome is the luck of one sample."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(actions: Any) -> None:
    parser = actions.add_parser(
        "noise",
        help="how much of a score is the luck of one sample",
        description="Take repeated samples apart: how much of a single score is luck, what a mean of several keeps, and how much of an "
        "oracle's gain other samples confirm (docs/grading.md). `ipr collect` writes samples.* where its plan says `samples: 2` or more.",
    )
    parser.add_argument("source", help="folder with samples.*, or the table itself: prompt_id, model, sample, quality")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.data.repeated_scores import read_repeated_scores
    from ipr_engine.grading.label_noise import label_noise

    repeated = read_repeated_scores(arguments.source)
    found = label_noise(repeated.scores)
    if arguments.json:
        print(json.dumps({**found.to_json(), "means": dict(zip(repeated.models, found.means.tolist(), strict=True))}))
        return 0
    for sentence in found.sentences():
        print(f"{sentence}.")
    width = max(map(len, repeated.models))
    print(f"{'model':<{width}}  quality  +- standard error")
    for name, mean, error in zip(repeated.models, found.means, found.errors, strict=True):
        print(f"{name:<{width}}  {mean:7.3f}  +- {error:.3f}")
    return 0
