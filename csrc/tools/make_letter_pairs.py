"""make_letter_pairs.py writes text_counts_pairs.inc: how hard each pair of letters is to tokenize, by real tokenizers' counts.

    python csrc/tools/make_letter_pairs.py texts.jsonl bpe-openai:o200k_base bpe-openai:cl100k_base ...

`texts.jsonl` and the tokenizers are as for `ipr tokens fit` (docs/tokens.md). Run it once for a new term only: bundles hold
coefficients of the term `letter_pairs`, so another table is another term. The extension has to be built; what it counts of
`letter_pairs` is not read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ipr_engine._C import count_texts
from ipr_engine.tokens.fit_profile import SYMBOLS, letter_pairs, pair_counts
from ipr_engine.tokens.samples import read_samples
from ipr_engine.tokens.tokenizers_at_hand import open_counter

INC = Path(__file__).parents[1] / "src" / "simd" / "text_counts_pairs.inc"


def written(table: np.ndarray) -> str:
    rows = [f"    {{{', '.join(map(str, row))}}}," for row in np.pad(table, ((0, 0), (0, 32 - SYMBOLS))).tolist()]
    head = "// Written by make_letter_pairs.py. Rows: the letter before, none or a to z; columns: the letter after.\n"
    return f"{head}constexpr uint8_t kPairs[{SYMBOLS}][32] = {{\n" + "\n".join(rows) + "\n};\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("tokenizers", nargs="+")
    arguments = parser.parse_args()
    texts = [sample.text for sample in read_samples(arguments.texts)]
    counted = {name: open_counter(name).count(texts) for name in arguments.tokenizers}
    INC.write_text(written(letter_pairs(pair_counts(texts), count_texts(texts), counted)), encoding="utf-8")


if __name__ == "__main__":
    main()
