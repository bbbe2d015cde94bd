"""`ipr distill` turns a sentence encoder into a static table."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "distill",
        help="distil a sentence encoder into a static table (extra [train])",
        description="Distil a sentence encoder into a model2vec folder that the static tier reads. Needs the extra [train].",
    )
    parser.add_argument("model", help="folder of a sentence-transformers model, or a hub id")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--dim", type=int, default=256, help="dimensions kept (default 256)")
    parser.add_argument(
        "--dtype", default="int8", choices=("int8", "float16", "float32"), help="row type (default int8)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.training.distill import distill

    print(distill(arguments.model, arguments.out, dim=arguments.dim, dtype=arguments.dtype))
    return 0
