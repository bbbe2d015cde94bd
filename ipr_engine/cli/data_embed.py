"""`ipr data embed` embeds the prompts of outcome data into an embedding cache."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ipr_engine.cli.options import GOES_ON, add_encoder_options
from ipr_engine.cli.ray_options import add_ray_options, ray_cluster


def add_parser(actions: Any) -> None:
    parser = actions.add_parser(
        "embed",
        help="embed prompts once, into a cache",
        description="Embed the prompts of outcome data and keep the embeddings in a cache, by encoder and prompt; what is in it is not "
        "computed again, and an interrupted run goes on. A transformer needs the extra [train].",
    )
    parser.add_argument("source", help="folder with prompts.* and outcomes.*, or a folder of such folders")
    parser.add_argument(
        "--encoder", required=True, metavar="DIR", help="a model2vec folder, an export, or a transformers folder"
    )
    parser.add_argument("--cache", required=True, metavar="DIR", help="folder of the cache; made if absent")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="(default 512 for a table, 256 for a transformer)")
    parser.add_argument("--pooling", help="mean, cls or last: for a transformers folder that does not tell it")
    add_encoder_options(parser, folders=False)
    parser.add_argument("--json", action="store_true", help="one JSON object a source on stdout")
    add_ray_options(parser, "embeds prompts")
    parser.set_defaults(run=run, resume=GOES_ON)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.data import EmbeddingCache
    from ipr_engine.data.embeddings import reporting
    from ipr_engine.data.outcome_files import find_sources, load_outcomes
    from ipr_engine.encoders.registry import open_encoder

    cluster = ray_cluster(arguments)
    cache = EmbeddingCache(arguments.cache)
    opened_by = {
        "folder": str(Path(arguments.encoder).resolve()),
        "max_tokens": arguments.max_tokens,
        "pooling": arguments.pooling,
        "tier": arguments.tier,
        "device": arguments.device,
        "threads": arguments.threads,
    }
    encoder = open_encoder(**opened_by)
    for folder in find_sources(arguments.source) or [Path(arguments.source)]:
        outcomes = load_outcomes(folder, split=arguments.split)
        begin = time.perf_counter()
        if cluster is not None:
            from ipr_engine.on_ray.embed_on_ray import embed_on_ray

            embed_on_ray(cache, encoder, opened_by, outcomes.prompts, cluster, _say)
        encoded = cache.embed(reporting(encoder, _say), outcomes.prompts)
        facts = {
            "source": outcomes.source,
            "prompts": len(outcomes),
            "truncated": int(encoded.truncated.sum()),
            "billed_tokens": int(encoded.billed_tokens.sum()),
            "seconds": round(time.perf_counter() - begin, 3),
            "encoder": encoder.identity,
            "dim": encoder.dim,
            "cache": str(cache.folder),
        }
        if arguments.json:
            print(json.dumps(facts, ensure_ascii=False), flush=True)
        else:
            print(
                f"{facts['source']}: {len(outcomes):,} prompts, {encoder.summary}, {facts['truncated']:,} truncated to "
                f"{encoder.max_tokens} tokens, {facts['seconds']:.1f} s -> {cache.folder} ({encoder.identity[:12]}...)",
                flush=True,
            )
    return 0


def _say(message: str) -> None:
    print(f"ipr data: {message}", file=sys.stderr, flush=True)
