"""This benchmark times surface features: the embedded table's encoding alone, with them behind it, and they alone.

Answers are checked before anything is timed: the definition's bits, and one call's bits against those of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.surface_reference import surface_reference

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave
from .prompts import ASCII, OTHER


def run(size: Size = FULL) -> Iterator[Line]:
    spec = Bundle.load(DEFAULT_BUNDLE).encoders[0]
    table = StaticEncoder.load(*(spec.files[role] for role in ("table", "tokenizer", "config")))
    surface = SurfaceEncoder.load()
    both = ConcatenatedEncoder([table, surface])
    alone, together = table.native, both.native
    assert alone is not None
    assert together is not None
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    for kind, prompts in {"ascii": list(ASCII), "other": list(OTHER), "10 kB": [ten_kb]}.items():
        check(table, surface, both, prompts)
        length = sum(len(prompt.encode()) for prompt in prompts) / len(prompts)
        labels = {"op": "surface", "prompts": kind, "bytes": round(length), "dim": surface.dim}
        # The C++ objects: what Python puts around them would hide a microsecond.
        yield from interleave(
            {
                "encode": lambda prompt: alone.encode((prompt,)),
                "encode with features": lambda prompt: together.encode((prompt,)),
                "features": lambda prompt: surface.surface.write((prompt,)),
            },
            prompts,
            labels,
            base="encode",
            size=size,
        )


def check(table: StaticEncoder, surface: SurfaceEncoder, both: ConcatenatedEncoder, prompts: list[str]) -> None:
    features = np.stack([surface_reference(prompt, surface.lexicon) for prompt in prompts])
    assert surface.encode(prompts).x.tobytes() == features.tobytes()
    assert both.encode(prompts).x.tobytes() == np.concatenate([table.encode(prompts).x, features], axis=1).tobytes()
