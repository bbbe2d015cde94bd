"""An attacker with the shipped table and heads tries to read the words of prompts out of records and bundles.

    python tests/support/privacy_attack.py      # one JSON line of what it recovers, as docs/privacy.md quotes it

Recall is the share of a prompt's distinct tokens, stopwords and marks left out, among as many guesses as the prompt has tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ipr_engine.bundle import Bundle

Array = np.ndarray[Any, Any]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STOPWORDS = frozenset(
    _words(
        "a an the and or of to in is it for on with as at by be this that i you we he she they my your his her its our "
        "are was were from not do does did what how why when which who can could will would should have has had if but "
        "so then there their them me us than"
    )
)
# Composed for this test, of one to forty tokens, as people ask.
PROMPTS = (
    "hello",
    "photosynthesis",
    "thanks",
    "explain gravity",
    "sort numbers",
    "capital of France",
    "list the planets by mass",
    "summarise this email",
    "translate good morning to Spanish",
    "fix the bug in my python function",
    "write a poem about the sea",
    "what is the boiling point of water",
    "Why do leaves turn red in autumn?",
    "Who painted the ceiling of the Sistine chapel?",
    "Draft a contract clause about confidentiality for a freelance designer",
    "Compare solar panels with wind turbines for a small farm in Scotland",
    "What is the derivative of x squared times the sine of x?",
    "A train leaves Boston at noon travelling sixty miles an hour; when does it arrive in Albany?",
    "Explain the difference between a stack and a queue to a student who has never written a program.",
    "Convert the following temperatures from Fahrenheit to Celsius and put the answers into a table with two columns",
    "Write a regular expression that matches a phone number with an optional country code and spaces between the groups",
    "If a fair coin is tossed nine times, what is the probability that it lands on heads exactly four times?",
    "Write a polite letter to my landlord asking him to repair the broken kitchen window before winter comes.",
    "Summarise the main causes of the fall of the Roman empire in three short paragraphs for a school newspaper.",
    "Give me a recipe for vegetable soup with lentils, carrots and ginger that takes less than thirty minutes.",
    "How can I stop my dog from barking at the postman every morning without using punishment or an electric collar?",
    "The doctor said my blood pressure is too high; which foods should I avoid and how often should I exercise each week?",
    "My grandmother planted twelve rose bushes and seven of them died in the frost; how many are left and what should she do?",
    "Our company sells used bicycles online and wants a slogan that sounds friendly, honest and a little funny; suggest five.",
    "I inherited an old wooden violin from my uncle, the bridge is cracked and two strings are missing; is it worth paying a "
    "craftsman to restore it, and what would he charge?",
)


PARTS: dict[str, Sequence[str]] = {
    "verb": _words(
    "explain describe compare summarise translate repair design plan calculate review improve paint cook clean "
    "measure test draw sort rewrite build install remove choose sell"
),
    "kind": _words(
    "old cheap wooden broken green honest quiet heavy modern tiny famous cold medical legal electric frozen sharp "
    "rusty empty golden"
),
    "thing": _words(
    "bicycle contract violin window python recipe garden telescope invoice novel engine bridge river castle camera "
    "mirror pension allergy carpet kettle ladder planet battery tractor whale treaty painting keyboard mortgage "
    "saddle furnace orchard compass passport skeleton harvest lantern pillow statue tunnel wallet zipper"
),
    "whom": [
        "my neighbour", "a student", "our company", "the teacher", "my grandmother", "a lawyer", "the nurse", "a farmer", "the mayor",
        "a plumber", "my cousin", "a tourist", "the judge", "a soldier",
    ],
    "where": _words(
    "Boston Scotland winter Berlin Peru autumn Tokyo Kenya Norway summer Lisbon Texas Cairo spring Prague"
),
    "how": [
        "before noon", "with ten steps", "in a short letter", "using a table", "without technical words", "for less than fifty dollars",
        "step by step", "as a poem", "with three examples", "in two paragraphs",
    ],
}  # fmt: skip


class Attacker:
    """An `Attacker` has a bundle: its token table, its vocabulary, its heads."""

    def __init__(self, bundle: Bundle) -> None:
        heads = bundle.quality_heads
        files = bundle.encoder(heads.encoder).files
        tensors = load_file(files["table"])
        self.table = tensors["embeddings"].astype(np.float32) * tensors["weights"][:, None]
        self.tokenizer = Tokenizer.from_file(str(files["tokenizer"]))
        words = self.tokenizer.get_vocab()
        self.words = sorted(words, key=words.__getitem__)
        self.heads = heads
        self.tensors = {name: np.asarray(tensor, np.float64) for name, tensor in heads.tensors.items()}
        named = [candidate.tokenizer for candidate in bundle.candidates]
        self.profiles = {profile: named.index(profile) for profile in named if profile is not None}  # to a column
        self._fit_inverse()

    def ids(self, prompt: str) -> list[int]:
        return list(self.tokenizer.encode(prompt, add_special_tokens=False).ids)

    def recall(self, prompt: str, guesses: Sequence[int]) -> float:
        ids = self.ids(prompt)
        wanted = {token for token in ids if self.tells(token)}
        return len(wanted & set(guesses[: len(ids)])) / len(wanted)

    def tells(self, token: int) -> bool:
        """Return whether the token is neither a stopword nor a mark."""
        word = self.words[token]
        return word not in STOPWORDS and any(c.isalnum() for c in word)

    # -- from an embedding

    def greedy(self, target: Array, atoms: Array, count: int) -> list[int]:
        """Return a sparse code by orthogonal matching pursuit with weights >= 0: atoms (tokens, dim), target (dim,)."""
        length = np.linalg.norm(atoms, axis=1)
        length[length < 1e-9] = np.inf
        chosen: list[int] = []
        left = target
        for _ in range(count):
            fit = (atoms @ left) / length
            fit[chosen] = -np.inf
            chosen.append(int(fit.argmax()))
            weights = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
            left = target - np.maximum(weights, 0) @ atoms[chosen]
        return chosen

    def from_x(self, x: Array, count: int) -> list[int]:
        return self.greedy(x.astype(np.float32), self.table, count)

    # -- from figures

    def figures(self, x: Array) -> Array:
        """Return (rows, 2 * models): logits and log tokens of embeddings (rows, dim)."""
        t = self.tensors
        hidden = x @ t["trunk"].T
        act = np.maximum(hidden[:, None] + t["identity"], 0) if "identity" in t else np.maximum(hidden[:, None], 0)
        logit = x @ t["skip"].T + np.einsum("bmh,mh->bm", act, t["out"]) + t["bias"]
        return np.concatenate([logit, x @ t["len_skip"].T + t["len_bias"]], axis=1)

    def observed(self, quality: Array, tokens: Array, own: Array | None = None) -> Array:
        """Return logits, log tokens and, where they are known, log input tokens by each tokenizer: own is (models,)."""
        q = np.clip(quality.astype(np.float64), 1e-6, 1 - 1e-6)
        parts = [np.log(q / (1 - q)), np.log(np.maximum(tokens.astype(np.float64), 1e-3))]
        if own is not None:
            parts.append(np.log(own[list(self.profiles.values())].astype(np.float64)))
        return np.concatenate(parts)

    def _fit_inverse(self) -> None:
        """Fit least squares from figures to embeddings, on bags of words made up by the attacker."""
        rng = np.random.default_rng(0)
        usable = np.flatnonzero(np.linalg.norm(self.table, axis=1) > 1)
        bags = [rng.choice(usable, rng.integers(5, 40)) for _ in range(3000)]
        x = np.array([self.table[bag].sum(0) for bag in bags], np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        texts = [" ".join(self.words[token] for token in bag).replace(" ##", "") for bag in bags]
        counts = np.log([profile.tokens(texts) for profile in self.profiles]).reshape(-1, len(bags)).T
        figures = np.concatenate([self.figures(x), counts], axis=1)
        self.mean, self.spread, self.x_mean = figures.mean(0), figures.std(0), x.mean(0)
        scaled = (figures - self.mean) / self.spread
        self.inverse = {}  # number of figures -> (figures, dim)
        for known in {scaled.shape[1], scaled.shape[1] - counts.shape[1]}:
            part = scaled[:, :known]
            ridge = part.T @ part + 1e-3 * len(x) * np.eye(known)
            self.inverse[known] = np.linalg.solve(ridge, part.T @ (x - self.x_mean))

    def _likely(self, observed: Array) -> Array:
        """Return the embedding that least squares gives for these figures."""
        known = len(observed)
        likely: Array = self.x_mean + (observed - self.mean[:known]) / self.spread[:known] @ self.inverse[known]
        return likely

    def by_regression(self, observed: Array, count: int) -> list[int]:
        """Guess by sparse coding of the embedding that the figures make likely."""
        return self.greedy(self._likely(observed).astype(np.float32), self.table, count)

    def by_projection(self, observed: Array, count: int) -> list[int]:
        """Step by Newton to an embedding that has these figures, then code it in the plane that the figures see.

        Input tokens, which no embedding tells, say where the steps start.
        """
        x = self._likely(observed)
        for _ in range(8):
            jacobian, figures = self._jacobian(x), self.figures(x[None])[0]
            away = (observed[: len(figures)] - figures) / self.spread[: len(figures)]
            x = x + np.linalg.lstsq(jacobian, away, rcond=1e-6)[0]
        jacobian = self._jacobian(x).astype(np.float32)
        return self.greedy(jacobian @ x.astype(np.float32), self.table @ jacobian.T, count)

    def _jacobian(self, x: Array) -> Array:
        t = self.tensors
        on = (t["trunk"] @ x + t["identity"]) > 0
        logit = t["skip"] + (on * t["out"]) @ t["trunk"]
        return np.concatenate([logit, t["len_skip"]]) / self.spread[: 2 * len(logit), None]

    def one_word(self, observed: Array) -> tuple[int, float]:
        """Search the whole vocabulary: return the token whose figures are nearest, and how near."""
        length = np.linalg.norm(self.table, axis=1, keepdims=True)
        alone = self.table / np.maximum(length, 1e-9)
        blocks = [self.figures(alone[at : at + 2048].astype(np.float64)) for at in range(0, len(alone), 2048)]
        away = np.abs((np.concatenate(blocks) - observed) / self.spread[: len(observed)]).max(axis=1)
        return int(away.argmin()), float(away.min())

    def frequent(self, prompts: Sequence[str], count: int) -> list[int]:
        """Return the tokens that most prompts have, stopwords and marks left out: guesses of one who has seen no record."""
        seen = Counter(token for prompt in prompts for token in set(self.ids(prompt)))
        told = [token for token, _ in seen.most_common() if self.tells(token)]
        return told[:count]


def mean_recall(attacker: Attacker, prompts: Sequence[str], guess: Callable[[int, int], list[int]]) -> float:
    """Return the mean recall of guesses; guess: (row, how many guesses) to tokens."""
    return float(np.mean([attacker.recall(p, guess(row, len(attacker.ids(p)))) for row, p in enumerate(prompts)]))


def composed(count: int) -> tuple[str, ...]:
    """Compose prompts of one domain with words of their own, all different."""
    rng = np.random.default_rng(7)

    def one(part: str) -> str:
        return str(rng.choice(PARTS[part]))

    return tuple(
        f"{one('verb')} the {one('kind')} {one('thing')} and the {one('thing')} of {one('whom')} in {one('where')} {one('how')}"
        for _ in range(count)
    )


def measure() -> dict[str, float]:
    """Return what docs/privacy.md quotes: recall of each attack on prompts of up to forty tokens."""
    from ipr_engine import Engine
    from ipr_engine.audit.record_writer import MIN_WORDS
    from ipr_engine.audit.row_record import distinct_words

    engine = Engine.load()
    attacker = Attacker(engine.bundle)
    x, made = engine.encode(list(PROMPTS)).x, engine.route_many(list(PROMPTS), tau=0.2)
    own = made.own_tokens
    assert own is not None  # the default bundle's candidates name tokenizers
    long = [row for row, prompt in enumerate(PROMPTS) if distinct_words(prompt) >= MIN_WORDS]
    told: dict[str, float] = {"prompts": len(PROMPTS), "of_enough_words": len(long)}
    told["from_x"] = mean_recall(attacker, PROMPTS, lambda row, count: attacker.from_x(x[row], count))
    for name in ("by_projection", "by_regression"):
        guess = getattr(attacker, name)

        def exact(row: int, count: int, guess: Any = guess) -> list[int]:
            found: list[int] = guess(attacker.observed(made.qualities[row], made.tokens_out[row], own[row]), count)
            return found

        def halved(row: int, count: int, guess: Any = guess) -> list[int]:
            quality = made.qualities[row].astype(np.float16)
            tokens = 64 * (made.tokens_out[row] / 64).astype(np.float16).astype(np.float32)
            found: list[int] = guess(attacker.observed(quality, tokens, own[row]), count)
            return found

        some = [PROMPTS[row] for row in long]
        told[f"figures_{name}_all_kept"] = mean_recall(attacker, PROMPTS, exact)
        told[f"figures_{name}"] = mean_recall(attacker, some, lambda row, count, g=exact: g(long[row], count))
        told[f"path_rows_{name}"] = mean_recall(attacker, some, lambda row, count, g=halved: g(long[row], count))
    return {name: round(value, 4) for name, value in told.items()}


if __name__ == "__main__":
    print(json.dumps(measure()))
