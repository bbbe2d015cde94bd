"""`ipr train` fits heads on outcome data and writes a bundle."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ipr_engine.bundle.conversation import CONVERSATIONS
from ipr_engine.bundle.encoder_entry import DTYPES
from ipr_engine.bundle.origin import constant_notice
from ipr_engine.cli.options import GOES_ON, add_cache_option, add_encoder_options, add_key_option, load_options
from ipr_engine.data.outcomes import TASK_COLUMNS
from ipr_engine.errors import InvalidInputError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="fit heads on outcome data and write a bundle (extra [train])",
        description="Fit a quality head and a tokens head per candidate on outcome data (docs/outcome-data.md) and write a bundle "
        "(docs/own-bundle.md). The frozen encoder is a table, a transformer, or several side by side; by default the embedded table, "
        "and what a text looks like beside it.",
    )
    parser.add_argument(
        "--outcomes",
        required=True,
        action="append",
        metavar="DIR",
        help="prompts.* and outcomes.* with output tokens; repeat to mix sources, the first is the one the heads speak of",
    )
    parser.add_argument("--candidates", required=True, metavar="FILE", help="JSON: candidates, prices, features")
    parser.add_argument("--out", required=True, metavar="ROOT", help="bundle root; the new bundle becomes current")
    parser.add_argument(
        "--encoder",
        action="append",
        metavar="DIR",
        help="model2vec folder (from ipr distill, say), export (ipr export-encoder) or transformers folder; repeat to put encoders "
        "side by side; 'default' is the embedded bundle's table; 'surface', beside one, adds what a text looks like (default: both "
        "where a forest may be fitted, else the table)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="of a transformer (default the export's own, 256 of a transformers folder)",
    )
    parser.add_argument(
        "--head-tokens",
        type=int,
        default=0,
        metavar="N",
        help="of a table: give the first N tokens of a prompt a mean of their own, beside that of the whole: for traffic where one text "
        "stands under many instructions; at most what the table reads of a prompt, 512 (default 0: none)",
    )
    parser.add_argument(
        "--fold-width",
        action=argparse.BooleanOptionalAction,
        help="of a table: read full width forms, as East Asian keyboards write them, as the ASCII that they stand for (default: the "
        "embedded table does, others do not)",
    )
    parser.add_argument(
        "--conversation",
        choices=CONVERSATIONS,
        help="what of several turns of a user is encoded: all as one text, the last, or recency: each alone, weighing half of the next "
        "(default recency of tables, all where an encoder is a transformer); docs/own-bundle.md",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="fit on an export's embeddings in this arithmetic: int8 of the onnx tier, bfloat16 of torch, bfloat16-mixed of openvino",
    )
    parser.add_argument("--pooling", help="mean, cls or last: for a transformers folder that does not tell it")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="let the bundle reference a transformer instead of containing it; name its folder with --encoder-folder at load",
    )
    add_key_option(
        parser,
        "it keys the hashes that the bundle keeps of its prompts; by default ROOT/owner.key, made where there is none",
    )
    add_cache_option(parser)
    add_encoder_options(parser, folders=False)
    parser.add_argument("--name", default="trained", help="name of the bundle (default trained)")
    parser.add_argument("--split", default="train", help="split to fit on, 'all' for every prompt (default train)")
    parser.add_argument(
        "--task-column",
        choices=TASK_COLUMNS,
        help="column of the prompts' table that says what each is for: heads tell its tasks apart, and callers may name one "
        "(docs/own-bundle.md)",
    )
    parser.add_argument(
        "--no-intercepts",
        action="store_true",
        help="with several sources: take them as parts of one traffic, not as levels to be taken out",
    )
    parser.add_argument(
        "--estimator",
        default="auto",
        metavar="NAME",
        help="plain, advantage_*, caps, forest (no networks), paper, adapters (networks), or auto: that of the first which "
        "cross-validation prefers (default)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of a network: loss=pairwise, hidden=128, loss.squared=0.5, ...; of caps and forest: caps=32, trees=60, ...; "
        "docs/own-bundle.md lists them; repeatable",
    )
    parser.add_argument(
        "--augment",
        type=int,
        default=0,
        metavar="N",
        help="fit on N copies of every prompt too, written otherwise (other case, greetings, words behind it, ...), with its outcomes: "
        "decisions heed such edits less (default 0); docs/own-bundle.md",
    )
    parser.add_argument(
        "--run-folder", metavar="DIR", help="keep a network's finished parts here; the same call resumes"
    )
    parser.add_argument(
        "--allow-constant",
        action="store_true",
        help="deliver heads that tell prompts apart no better than a constant does, marked as such, instead of refusing",
    )
    parser.add_argument(
        "--no-standing",
        action="store_true",
        help="do not say how far the router is (beside k-means, single candidates and a coin, and with fewer prompts), which takes "
        "12 more fits",
    )
    parser.add_argument("--seed", type=int, default=0, help="of folds and centroids (default 0)")
    parser.add_argument(
        "--created", default=time.strftime("%Y-%m-%d"), help="date written into the bundle (default today)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.run_folder is not None:
        arguments.resume = GOES_ON
    from ipr_engine.training.train import train
    from ipr_engine.training.train_options import BundleTarget, EncoderChoice, FitOptions, TrainingData

    trained = train(
        TrainingData(
            outcomes=arguments.outcomes,
            candidates=arguments.candidates,
            split=None if arguments.split == "all" else arguments.split,
            intercepts=not arguments.no_intercepts,
            encoder=EncoderChoice(
                folders=arguments.encoder,
                options=load_options(arguments),
                max_tokens=arguments.max_tokens,
                pooling=arguments.pooling,
                dtype=arguments.dtype,
                head_tokens=arguments.head_tokens,
                fold_width=arguments.fold_width,
                contained=not arguments.reference,
                conversation=arguments.conversation,
            ),
            task_column=arguments.task_column,
            cache=arguments.cache,
        ),
        BundleTarget(root=arguments.out, name=arguments.name, created=arguments.created, key=arguments.key),
        fit=FitOptions(
            estimator=arguments.estimator,
            options=_options(arguments.option),
            seed=arguments.seed,
            run=arguments.run_folder,
            allow_constant=arguments.allow_constant,
            standing=not arguments.no_standing,
            augment=arguments.augment,
        ),
        progress=lambda message: print(f"ipr train: {message}", file=sys.stderr, flush=True),
    )
    columns = (
        trained.names,
        trained.judged,
        trained.quality,
        trained.predicted,
        trained.brier,
        trained.calibration_error,
    )
    rows = [
        {
            "candidate": name,
            "judged": int(n),
            "quality": float(q),
            "predicted": float(p),
            "brier": float(b),
            "ece": None if name in trained.constant else float(e),
            "constant": trained.constant.get(name),
        }
        for name, n, q, p, b, e in zip(*columns, strict=True)
    ]
    if arguments.json:
        facts = {"bundle": trained.folder.name, "estimator": trained.estimator, "prompts": trained.prompts}
        facts |= {"tasks": dict(trained.tasks)} if trained.tasks else {}
        standing = None if trained.standing is None else trained.standing.to_json()
        print(json.dumps({**facts, "dropped": trained.dropped, "candidates": rows, "standing": standing}))
        return 0
    print(f"{trained.folder}\n{trained.estimator}, {trained.prompts} prompts, {trained.dropped} left out; out of fold:")
    width = max(len(name) for name in trained.names)
    print(f"{'candidate':<{width}}  judged  quality  predicted  Brier    ECE")
    for row in rows:
        print(
            f"{row['candidate']:<{width}}  {row['judged']:6d}  {row['quality']:7.3f}  {row['predicted']:9.3f}  "
            f"{row['brier']:.3f}  " + ("-  constant" if row["constant"] else f"{row['ece']:.3f}")
        )
    if trained.constant:
        print(constant_notice(trained.constant, len(rows)))
    return 0


def _options(given: list[str]) -> dict[str, Any]:
    """Return the options of NAME=VALUE pairs: VALUE as JSON where it is some, else as text; NAME.PART=VALUE makes a mapping."""
    options: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not name or not equals:
            raise InvalidInputError(f"--option: expected NAME=VALUE such as loss=pairwise, got {item!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        head, _, part = name.partition(".")
        if part:
            mapping = options.setdefault(head, {})
            if not isinstance(mapping, dict):
                raise InvalidInputError(f"--option: {head} is given both as one value and by parts")
            mapping[part] = value
        else:
            options[name] = value
    return options
