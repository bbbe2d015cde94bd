"""ipr eval: a bundle on outcomes that are known, beside every baseline."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.cli.common import add_bundle_options, load_engine
from ipr_engine.data import MEASURES, load_outcomes
from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.encoders.base import Encoded
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError

FOLDS = 5
PACKAGES = ("ipr_engine", "numpy", "scikit-learn", "matplotlib")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a bundle on known outcomes, beside every baseline (extra [eval])",
        description="Evaluate a bundle on a source's test split: prediction, quality over cost, savings, each with intervals and "
        "beside every baseline; docs/metrics.md has the definitions. Baselines and the cost axis come from its train split. "
        "Decisions are the engine's own. Without --out the Markdown report goes to stdout.",
    )
    parser.add_argument("--outcomes", required=True, type=Path, metavar="DIR", help="prompts.parquet, outcomes.parquet")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.md, report.json and PNG plots here")
    parser.add_argument("--json", action="store_true", help="report.json on stdout")
    parser.add_argument(
        "--map", action="append", default=[], metavar="NAME=SOURCE", help="a candidate's name in the source; repeatable"
    )
    parser.add_argument("--allow", action="append", metavar="NAME", help="only this candidate; repeatable")
    parser.add_argument("--family", action="append", metavar="NAME", help="only this family; repeatable")
    parser.add_argument(
        "--validation",
        default="halves",
        choices=("halves", "train"),
        help="choose operating points on one half of test for the other, or on train (default halves)",
    )
    parser.add_argument("--litellm", action="store_true", help="also LiteLLM's heuristic_v2, by the installed litellm")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap, halves, folds, k-means (default 0)")
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.evaluation import report
    from ipr_engine.evaluation.baselines import litellm_tiers
    from ipr_engine.evaluation.summary import summarise
    from ipr_engine.training.folds import grouped_folds

    if arguments.draws < 1:
        raise InvalidInputError(f"--draws: expected at least 1, got {arguments.draws}")
    engine = load_engine(arguments)
    _say(f"reading {arguments.outcomes.name} ...")
    source = load_outcomes(arguments.outcomes)
    names, sources = _candidates(engine, arguments, set(source.models))
    _say(f"{len(names)} candidates")
    train, train_rows = _split(engine, source, names, sources, "train")
    test, test_rows = _split(engine, source, names, sources, "test")
    summary = summarise(
        names,
        train,
        test,
        grouped_folds(train.groups, FOLDS, arguments.seed),
        validate_on_train=arguments.validation == "train",
        tiers=litellm_tiers(test_rows.prompts) if arguments.litellm else None,
        draws=arguments.draws,
        seed=arguments.seed,
        progress=_say,
    )
    title = (
        f"{engine.bundle.name} bundle, {len(names)} candidate{'s' if len(names) > 1 else ''}, "
        f"on {arguments.outcomes.name}, {len(test_rows.prompts)} test prompts"
    )
    summary.figures["about"] = _about(engine, arguments, title, train_rows, test_rows)
    if arguments.out is not None:
        from ipr_engine.evaluation.plots import draw_all

        _say("drawing ...")
        plots = draw_all(summary, arguments.out, title)
        for path in [*report.write(summary.figures, plots, arguments.out), *plots]:
            _say(f"wrote {path}")
    if arguments.json:
        print(report.to_json(summary.figures), end="")
    elif arguments.out is None:
        print(report.render(summary.figures), end="")
    return 0


def _say(message: str) -> None:
    print(f"ipr eval: {message}", file=sys.stderr, flush=True)


def _candidates(engine: Engine, arguments: argparse.Namespace, known: set[str]) -> tuple[list[str], list[str]]:
    """Candidates that may be chosen and are in the source, in bundle order, and their names there."""
    allowed = engine.policy(tau=0.0, allowed=arguments.allow, family=arguments.family).allowed
    trained_as = engine.bundle.provenance.get("sources", {})  # what `ipr train` wrote
    mapping = {name: trained_as.get(name, name) for name in engine.bundle.names}
    for item in arguments.map:
        name, _, source = item.partition("=")
        if name not in mapping or not source:
            raise InvalidInputError(
                f"--map: expected NAME=SOURCE with a candidate's name ({', '.join(mapping)}), got {item!r}"
            )
        mapping[name] = source
    names = [name for name in allowed if mapping[name] in known]
    left_out = [name for name in allowed if mapping[name] not in known]
    if left_out:
        _say(f"not in the source, left out: {', '.join(left_out)}; name them with --map NAME=SOURCE")
    if not names:
        raise InvalidInputError(f"--outcomes: no candidate is in the source; it has {', '.join(sorted(known))}")
    return names, [mapping[name] for name in names]


def _split(engine: Engine, source: OutcomeData, names: list[str], sources: list[str], split: str) -> tuple[Any, Any]:
    """One split as the evaluation sees it, and the outcomes it came from (complete rows)."""
    from ipr_engine.evaluation.routing import Outcomes
    from ipr_engine.evaluation.summary import Split

    rows = source.of_split(split).complete(sources, measures=MEASURES)
    encoded = engine.encode(list(rows.prompts))
    columns = [engine.bundle.names.index(name) for name in names]
    tokens = None if _predicts_tokens(engine) else rows.output_tokens.mean(axis=0)
    decisions = engine.decide(encoded, tau=0.0, allowed=names, tokens_out=_all_columns(engine, columns, tokens))
    return (
        Split(
            outcomes=Outcomes.complete(rows.quality, rows.cost_usd),
            x=np.asarray(encoded.x, np.float64),
            groups=rows.question_keys,
            predicted=np.asarray(decisions.qualities[:, columns], np.float64),
            predicted_cost=np.asarray(decisions.costs_usd[:, columns], np.float64),
            sweeps=_sweeps(engine, encoded, names, columns, tokens),
            tokens=rows.output_tokens,
            predicted_tokens=np.asarray(decisions.tokens_out[:, columns], np.float64),
        ),
        rows,
    )


def _predicts_tokens(engine: Engine) -> bool:
    return "len_skip" in engine.bundle.quality_heads.tensors


def _all_columns(engine: Engine, columns: list[int], tokens: Any) -> Any:
    """Tokens (models of the bundle,) from those of the evaluated columns; None stays None."""
    if tokens is None:
        return None
    result = np.zeros(len(engine.bundle.names), np.float32)
    result[columns] = tokens
    return result


def _sweeps(
    engine: Engine, encoded: Encoded, names: list[str], columns: list[int], tokens: Any
) -> dict[str, npt.NDArray[np.int64]]:
    """Every sweep of the router, decided by the engine; choices are positions in `names`."""
    from ipr_engine.evaluation.baselines import TAUS, WORTHS

    position = np.full(len(engine.bundle.names), -1)
    position[columns] = np.arange(len(columns))
    given = _all_columns(engine, columns, tokens)
    rules = ["minmax", "max"] + (["fixed"] if engine.bundle.quality_heads.rule_constants is not None else [])
    plans: dict[str, list[dict[str, Any]]] = {"worth": [{"tau": 1.0, "worth": float(worth)} for worth in WORTHS]}
    plans |= {rule: [{"tau": float(tau), "rule": rule} for tau in TAUS] for rule in rules}
    return {
        name: np.stack(
            [position[engine.decide(encoded, allowed=names, tokens_out=given, **terms).index] for terms in plan]
        )
        for name, plan in plans.items()
    }


def _about(engine: Engine, arguments: argparse.Namespace, title: str, train: Any, test: Any) -> dict[str, Any]:
    """What a reader needs to repeat it. Names no folder of the machine that ran it."""
    fitted = engine.bundle.quality_heads.fitted_on
    if fitted.prompt_ids_sha256 == train.prompt_ids_sha256:
        overlap = "exactly the train rows read here: its predictions on train are in-sample"
    else:
        overlap = "not exactly the train rows read here, but some may be among them: in-sample then"
    return {
        "title": title,
        "command": _command(arguments),
        "bundle": f"{engine.bundle.name} {engine.bundle.hash}",
        "outcomes": f"{arguments.outcomes.name}; test prompt ids sha256 {test.prompt_ids_sha256}",
        "incomplete rows left out": f"{train.dropped} train, {test.dropped} test",
        "router fitted on": f"{fitted.prompts} prompts of {fitted.source}; {overlap}",
        "decided by": f"the C++ op, {engine.plan.isa}",
        "output tokens": "predicted"
        if _predicts_tokens(engine)
        else "the source's means, since the heads predict none",
        "versions": ", ".join(
            f"{name} {found}"
            for name in (*PACKAGES, *(["litellm"] if arguments.litellm else []))
            if (found := _version(name))
        ),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _command(arguments: argparse.Namespace) -> str:
    parts = ["ipr", "eval", "--outcomes", arguments.outcomes.name]
    if arguments.bundle is not None:
        parts += ["--bundle", os.path.basename(os.path.normpath(arguments.bundle))]
    for option in ("map", "allow", "family"):
        for value in getattr(arguments, option) or []:
            parts += [f"--{option}", value]
    parts += ["--litellm"] if arguments.litellm else []
    for option, default in (("validation", "halves"), ("draws", 1000), ("seed", 0)):
        if getattr(arguments, option) != default:
            parts += [f"--{option}", str(getattr(arguments, option))]
    return shlex.join([*parts, "--out", "DIR"] if arguments.out is not None else parts)
