"""`ipr bench encoder` times every transformer tier and peer of this machine on the same prompts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ipr_engine.errors import InvalidInputError


def add_parser(benches: Any) -> None:
    parser = benches.add_parser(
        "encoder",
        help="time every transformer tier of this machine beside its peers",
        description="Embed generated prompts of exact lengths with every tier that runs here and every peer that is installed, in turns; "
        "tokenise, embed and both apart, with ratios taken round by round and the shares of the measured roofs.",
    )
    parser.add_argument("folder", type=Path, metavar="EXPORT", help="what `ipr export-encoder` wrote")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="the folder it was made of, for the peers that read it"
    )
    parser.add_argument("--lengths", type=_ints, metavar="N,N", help="ids a prompt (default 16 to 512)")
    parser.add_argument("--batches", type=_ints, metavar="N,N", help="prompts a call (default 1,8,32,64)")
    parser.add_argument("--mixed", type=_ints, metavar="N,N", help="batches of mixed lengths (default 32)")
    parser.add_argument("--only", metavar="NAME,NAME", help="these tiers and peers alone")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of each (default: the cores it may use)")
    parser.add_argument("--device", default="cpu", help="cpu, or a device of CUDA")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="a cell of length and batch")
    parser.add_argument("--most-ids", type=int, default=8192, metavar="N", help="leave out cells of more ids a call")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, nothing else")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="append the lines, with machine and commit, to FILE"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write encoder.md and encoder.png there")
    parser.set_defaults(run=run)


def _ints(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    from ..encoders.run import Settings, bench_encoder
    from ..encoders.tables import plot, tables
    from ..harness.machine import machine, recorded
    from ..harness.results import append, as_json

    given = {name: getattr(arguments, name) for name in ("lengths", "batches", "mixed")}
    settings = Settings(
        **{name: value for name, value in given.items() if value is not None},
        threads=arguments.threads,
        seconds=arguments.seconds,
        device=arguments.device,
        most_ids=arguments.most_ids,
        only=None if arguments.only is None else [name.strip() for name in arguments.only.split(",")],
    )
    if arguments.threads < 0:
        raise InvalidInputError(f"--threads: expected at least 1, got {arguments.threads}")
    command = "ipr " + " ".join(sys.argv[1:])
    lines, loads = [], []
    for line in bench_encoder(arguments.folder, arguments.model, settings, _say):
        lines.append(line)
        whole = recorded(line, command)
        loads.append(whole["load_1m"])
        if arguments.json:
            print(as_json(whole), flush=True)
        if arguments.record is not None:
            append(arguments.record, [whole])
    text = tables(lines)
    if not arguments.json:
        print(text)
    if arguments.report is not None:
        arguments.report.mkdir(parents=True, exist_ok=True)
        plot(lines, arguments.report / "encoder.png")
        load = f"load {min(loads)} to {max(loads)}"
        heading = f"# Encoder tiers, measured\n\n{machine()['machine']}; {load}; {machine()['date']}; `{command}`\n\n"
        (arguments.report / "encoder.md").write_text(heading + text + "\n![time against length](encoder.png)\n")
    return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
