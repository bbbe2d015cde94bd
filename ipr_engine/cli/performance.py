"""`ipr performance` fits figures of candidates to recorded answers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipr_engine.cli.options import named_pairs
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.performance import Answers, Interval, TimingFit


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("performance", help="candidates' speed, from recorded answers")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser(
        "fit",
        help="fit seconds to the first token and per output token to recorded answers",
        description="Fit ttft_s and tpot_s, both >= 0, to each model's recorded answers: seconds = ttft_s + tpot_s * output tokens, "
        "under Huber's loss. --json prints what `ipr set-performance` takes. Exit code 3: nothing was fitted to some model.",
    )
    fit.add_argument(
        "file",
        metavar="FILE",
        help=".jsonl, .csv or .parquet with the columns model, output_tokens, seconds (or latency_ms) of whole answers and, where "
        "recorded, ttft_seconds (or ttft_ms)",
    )
    fit.add_argument(
        "--as",
        dest="called",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="candidate NAME is called KEY there (repeatable)",
    )
    fit.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=THEIRS",
        help="take their column THEIRS for NAME (repeatable)",
    )
    fit.add_argument(
        "--bundle", metavar="PATH", help="fit the candidates of this bundle; other models are told and left out"
    )
    fit.add_argument("--json", action="store_true", help="one JSON object on stdout, the file of `ipr set-performance`")
    fit.set_defaults(run=run_fit)


def run_fit(arguments: argparse.Namespace) -> int:
    from ipr_engine.performance import Refusal, fit_timing, read_answers

    columns = named_pairs("--column", arguments.column, "NAME=THEIRS such as output_tokens=completion_tokens")
    answers = _named(read_answers(arguments.file, columns=columns, report=_tell), arguments)
    fits, refused = {}, {}
    for name, own in answers.items():
        made = fit_timing(own.output_tokens, own.seconds, own.ttft_seconds)
        if isinstance(made, Refusal):
            refused[name] = made.reason
        else:
            fits[name] = made
            _tell_of_first_tokens(name, own, made)
    for name, reason in refused.items():
        _tell(f"{name}: not fitted: {reason}")
    if not fits:
        raise InvalidInputError(f"file: nothing could be fitted to the answers of any model of {arguments.file}")
    if arguments.json:
        figures = {name: _figures(made, Path(arguments.file).name) for name, made in fits.items()}
        stated = {name: made.to_json() for name, made in fits.items()}
        print(json.dumps({"performance": figures, "fits": stated, "refused": refused}, indent=1))
    else:
        _print(fits)
    return 3 if refused else 0


def _tell(message: str) -> None:
    print(f"ipr performance: {message}", file=sys.stderr)


def _tell_of_first_tokens(name: str, own: Answers, made: TimingFit) -> None:
    """Say which answers, or which times of a first token, were not read."""
    import numpy as np

    from ipr_engine.performance.timing import LEAST

    if made.left_out:
        _tell(
            f"{name}: {made.left_out} answers have no time of the first token and are left out, the other {made.answers} do"
        )
    elif own.ttft_seconds is not None and not made.with_ttft:
        recorded = int(np.isfinite(own.ttft_seconds).sum())
        if recorded:
            _tell(
                f"{name}: {recorded} of {made.answers} answers have the time of the first token, at least {LEAST} are needed; the line "
                "is fitted to whole answers"
            )


def _named(answers: dict[str, Answers], arguments: argparse.Namespace) -> dict[str, Answers]:
    """Return the answers by candidate: renamed by --as, and those of --bundle alone where it is given."""
    from ipr_engine.bundle import Bundle

    called = named_pairs("--as", arguments.called, "NAME=KEY")
    missing = [key for key in called.values() if key not in answers]
    if missing:
        raise InvalidInputError(f"--as: the file has no model {missing[0]!r}; it has {', '.join(answers)}")
    if len(set(called.values())) < len(called):
        raise InvalidInputError(f"--as: expected one name for each model, got {', '.join(arguments.called)}")
    name_of = {key: name for name, key in called.items()}
    named = {name_of.get(key, key): own for key, own in answers.items()}
    if len(named) < len(answers):
        twice = [name for name, key in called.items() if name in answers and key != name]
        raise InvalidInputError(
            f"--as: the file has a model {twice[0]!r} already; leave out {twice[0]}={called[twice[0]]}"
        )
    if arguments.bundle is None:
        return named
    names = Bundle.load(arguments.bundle).names
    for other in [name for name in named if name not in names]:
        _tell(f"{other} is no candidate of the bundle; left out")
    kept = {name: named[name] for name in names if name in named}
    if not kept:
        raise InvalidInputError(
            f"file: expected answers of {' or '.join(names)}, got {', '.join(named)}; say what it calls them with --as NAME=KEY"
        )
    return kept


def _figures(made: TimingFit, file: str) -> dict[str, Any]:
    """Return a candidate's figures as `ipr set-performance` reads them."""
    basis = f"fitted to {made.answers} answers of {file}, mean error out of fold {made.error_s:.2g} s"
    return {"ttft_s": _rounded(made.ttft_s.value), "tpot_s": _rounded(made.tpot_s.value), "basis": basis}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _print(fits: dict[str, TimingFit]) -> None:
    def shown(part: Interval) -> str:
        return f"{part.value:.3g} [{part.low:.3g}, {part.high:.3g}]"

    rows = [("model", "answers", "ttft_s", "tpot_s", "error_s", "bias_s", "error_of_mean_s")]
    for name, made in fits.items():
        errors = (f"{made.error_s:.3g}", f"{made.bias_s:+.3g}", f"{made.error_of_mean_s:.3g}")
        rows.append((name, _counted(made), shown(made.ttft_s), shown(made.tpot_s), *errors))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "95 % intervals; error_s: mean absolute error of an answer's seconds, out of fold; bias_s: mean of predicted - recorded, below "
        "0 where the fit\npromises less time than answers take; error_of_mean_s: the error of predicting the model's mean instead"
    )


def _counted(made: TimingFit) -> str:
    of = f" of {made.answers + made.left_out}" if made.left_out else ""
    return f"{made.answers}{of}{' (ttft)' if made.with_ttft else ''}"
