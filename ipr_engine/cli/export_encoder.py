"""`ipr export-encoder` turns a sentence encoder into the files that the transformer tiers read."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ipr_engine.cli.rows import read_jsonl
from ipr_engine.encoders.transformer_files import POOLINGS
from ipr_engine.prompts import parse_request


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export-encoder",
        help="export a sentence encoder for the tiers onnx, openvino, tensorrt and torch (extra [export])",
        description="Export a sentence encoder: ONNX with pooling and normalisation inside, float16 weights, a manifest with hashes. "
        "Every graph is compared with the float32 model before it is kept. Needs the extra [export].",
    )
    parser.add_argument("source", help="folder of a sentence-transformers or transformers model, or a hub id")
    parser.add_argument("out", help="folder to write; must not exist, or be empty")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id (default: its main branch)")
    parser.add_argument("--pooling", choices=POOLINGS, help="where the folder does not tell it")
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="the most tokens the tiers take by default (default: the model's, <= 512)",
    )
    parser.add_argument("--int8", action="store_true", help="write an int8 graph for the CPU too")
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help='JSONL of {"prompt": ...} on which the int8 weights are rounded (default: built in)',
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.encoders.export import export_encoder
    from ipr_engine.encoders.openvino import COSINES

    export = export_encoder(
        arguments.source,
        arguments.out,
        revision=arguments.revision,
        pooling=arguments.pooling,
        max_tokens=arguments.max_tokens,
        int8=arguments.int8,
        calibration=_calibration(arguments.calibration),
        progress=lambda message: print(f"ipr export-encoder: {message}", file=sys.stderr, flush=True),
    )
    cosines = export.provenance["smallest_cosine"]
    if arguments.json:
        facts = {
            "folder": str(export.folder),
            "architecture": export.architecture,
            "dim": export.dim,
            "pooling": export.spec.pooling,
            "normalize": export.spec.normalize,
            "max_tokens": export.max_tokens,
            "identity": export.spec.identity(export.max_tokens),
            "revision": export.revision,
            "files": {role: str(path) for role, path in export.files.items()},
            "smallest_cosine": cosines,
        }
        print(json.dumps(facts))
        return 0
    print(
        f"{export.folder}: {export.architecture}, {export.dim} dimensions, {export.spec.pooling} pooling"
        f"{', normalised' if export.spec.normalize else ''}, {export.max_tokens} tokens"
    )
    for role, path in export.files.items():
        cosine = f"  smallest cosine to float32 {cosines[role]:.7f}" if role in cosines else ""
        print(f"  {path.name:<18} {path.stat().st_size / 1e6:8.1f} MB{cosine}")
    measured = [f"in {dtype} {cosines[name]:.7f}" for dtype, name in COSINES.items() if name in cosines]
    if measured:
        print(f"  model.onnx by OpenVINO, smallest cosine to float32: {', '.join(measured)}")
    return 0


def _calibration(path: str | None) -> list[str] | None:
    """Return what of each row is encoded; None for the built-in prompts."""
    return (
        None
        if path is None
        else [parse_request(request.prompt, where=request.where).encoded for request in read_jsonl(path)]
    )
