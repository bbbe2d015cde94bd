"""`ipr study` runs one of the project's studies on public outcomes, and writes a table and a plot."""

from __future__ import annotations

import argparse
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ipr_engine._clone import import_beside
from ipr_engine._files import writable_folder
from ipr_engine.errors import BackendUnavailableError

# One line each; the study's module says the rest.
STUDIES = {
    "estimators": "estimator x loss x link, beside kNN, k-means and ridge",
    "encoders": "static table, transformer, both; text features added",
    "escalation": "two tiers: quality and cost over mean latency, 0 to 100 % escalated",
    "check_then_escalate": "check an answer before a dearer candidate is asked: what such plans add to a router",
    "rules": "decision rules, with mean and with predicted cost",
    "tau": "does tau keep its promise: pairs, triples and full sets on test splits",
    "families": "unified against family-specific heads",
    "family_forest": "the same with a forest, cross-fitted, on known datasets and on unknown ones",
    "acquisition": "which outcomes to buy: chosen cells beside random ones at equal dollars",
    "learning": "area over training prompts",
    "transfer": "heads of one source on another; sources mixed",
    "default_sources": "what the default bundle should be fitted on",
    "published": "beside RouterDC's and RouteLLM's numbers",
    "claude": "cost saved among Claude candidates",
    "add_model": "a candidate added to frozen heads: how many prompts it takes",
    "chosen_prompts": "a candidate added from 200 answers: random or contested prompts, its own outcomes or as add-model does",
    "prior": "is a prior of public scores any good: `ipr init --offline` on sources that its scores leave out",
    "selection": "which closed form to ship, by nested cross-validation on training splits alone",
    "choosing": "what auto should choose an estimator by: the area, the cost at equal quality or the Brier score",
    "int8": "decisions and quality with the int8 onnx tier (--transformer: an export with an int8 graph)",
    "grading": "graders calibrated on a few labels, judged on the rest; the noise of one sample (recorded answers)",
    "performance": "seconds of recorded answers from their output tokens; quality, USD and seconds as seconds gain weight",
    "forest": "trees on surface features beside caps, cross-fitted; prompts written otherwise",
    "conversations": "what of a conversation is encoded: the last turn, all, the earlier ones with less weight",
    "head": "a mean of a prompt's first tokens beside that of the whole: documents under instructions",
    "edits": "prompts written otherwise and suffixes that ask for a dearer candidate; what copies bring to a fit",
    "guard": "decisions that must hold without a prompt's last and first words: what that costs, and what searched words raise then",
    "tasks": "what naming the task brings: the dataset of each prompt, told to heads that were fitted with tasks",
    "headline": "the shipped estimator beside every baseline, on every source with costs",
}


def add_parser(subparsers: Any) -> None:
    listed = "; ".join(f"{name}: {text}" for name, text in STUDIES.items())
    parser = subparsers.add_parser(
        "study",
        help="repeat one of the project's studies on outcome data, from a clone (extras [train] and [eval])",
        description=f"Repeat a study of docs/studies. {listed}.",
    )
    parser.add_argument("name", choices=sorted(STUDIES))
    parser.add_argument(
        "--outcomes", required=True, type=Path, metavar="DIR", help="folder with one source a subfolder"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="write NAME.md, NAME.json and plots here"
    )
    parser.add_argument("--source", action="append", metavar="NAME", help="only this source; repeatable")
    parser.add_argument(
        "--transformer", type=Path, metavar="DIR", help="export or sentence-transformers folder (MiniLM, say)"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the transformer's embeddings here")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default 1000)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    writable_folder(arguments.out, "--out")
    # A page names the commit that made it, as a benchmark's line does, and asks benchmarks/ for it.
    if not (import_beside("benchmarks") and import_beside("studies")):
        raise BackendUnavailableError(
            "the studies are part of a clone of this project, not of an installed package: clone it, install it there "
            "(make test-all) and run the command with that clone's .venv/bin/ipr"
        )
    study = import_module("studies.study").Study(
        outcomes=arguments.outcomes,
        out=arguments.out,
        sources=tuple(arguments.source or ()),
        transformer=arguments.transformer,
        cache=arguments.cache,
        draws=arguments.draws,
        command=_command(arguments),
        progress=lambda message: print(f"ipr study: {message}", file=sys.stderr, flush=True),
    )
    for path in import_module(f"studies.{arguments.name}").run(study):
        print(f"ipr study: wrote {path}", file=sys.stderr)
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that a page states, with DIR for folders of this machine."""
    parts = ["ipr", "study", arguments.name, "--outcomes", "DIR"]
    for source in arguments.source or ():
        parts += ["--source", source]
    if arguments.transformer is not None:
        parts += ["--transformer", arguments.transformer.name]
    if arguments.draws != 1000:
        parts += ["--draws", str(arguments.draws)]
    return shlex.join([*parts, "--out", "DIR"])
