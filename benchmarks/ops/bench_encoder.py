"""This benchmark times the default bundle's static encoder (tokenizing, gather, whole) beside `tokenizers` and model2vec.

Answers are checked before anything is timed: the same ids as the library's, the same bytes on every instruction set.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.decide.contract import available_isas
from ipr_engine.encoders.static import StaticEncoder

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave
from ..peers.embedding import model2vec_of
from .prompts import ASCII, OTHER


def run(size: Size = FULL) -> Iterator[Line]:
    spec = Bundle.load(DEFAULT_BUNDLE).encoders[0]
    files = [spec.files[role] for role in ("table", "tokenizer", "config")]
    encoder = StaticEncoder.load(*files)
    by_isa = {isa: StaticEncoder.load(*files, isa=isa) for isa in available_isas()}
    library = StaticEncoder.load(*files, tokenizer="tokenizers")
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    kinds = {"ascii": list(ASCII), "other": list(OTHER), "10 kB": [ten_kb], "1 MB": [ten_kb * 100]}
    for kind, prompts in kinds.items():
        for other in by_isa.values():
            check(other, library, prompts)
        length = sum(len(prompt.encode()) for prompt in prompts) / len(prompts)
        tokens = sum(encoder.count_tokens(prompt) for prompt in prompts) / len(prompts)
        labels = {"op": "encode", "prompts": kind, "bytes": round(length), "tokens": round(tokens)}
        yield from interleave(
            variants(encoder, by_isa, None if "B" in kind else library, spec.files),
            prompts,
            labels,
            base="encode",
            size=size,
        )


def check(encoder: StaticEncoder, library: StaticEncoder, prompts: list[str]) -> None:
    found, expected = encoder.encode(prompts), library.encode(prompts)
    assert found.x.tobytes() == expected.x.tobytes()
    assert found.billed_tokens.tolist() == expected.billed_tokens.tolist()


def variants(
    encoder: StaticEncoder,
    by_isa: dict[str, StaticEncoder],
    library: StaticEncoder | None,
    files: Mapping[str, Path],
) -> dict[str, Callable[[str], object]]:
    """Return calls of one prompt. The peers are left out where they would take all the time (library is None)."""
    calls: dict[str, Callable[[str], object]] = {
        "encode": lambda prompt: encoder.encode([prompt]),
        "tokenize": encoder.count_tokens,
    }
    for isa, forced in by_isa.items():
        calls[f"encode, {isa}"] = one_at_a_time(forced)
    if library is None:
        return calls
    calls["tokenizers: tokenize"] = library.count_tokens
    if importlib.util.find_spec("model2vec") is None:
        print("encoder: model2vec not run: not installed", file=sys.stderr)
        return calls
    model = model2vec_of(files)
    return calls | {"model2vec: encode": lambda prompt: model.encode([prompt])}


def one_at_a_time(encoder: StaticEncoder) -> Callable[[str], object]:
    return lambda prompt: encoder.encode([prompt])
