"""An `OutcomeTable` is a token table learned from outcomes: one epoch of a linear multi-task model on other sources, then
frozen.

Rows of the table stand for tokens and for hashed pairs of neighbouring tokens; a prompt's embedding is their mean at unit
norm (Joulin et al. 2017, arXiv 1607.01759). Tasks are, per source, the difficulty of a prompt and each candidate's
advantage (`ridge.row_difficulty`), so the table learns what tells candidates apart as well as what is hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.estimators.advantage import row_difficulty

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

# Chosen by out-of-fold error on cascade9's training split; 32 to 128 columns and rates from 0.003 to 0.03 are level there.
DIM = 64
BUCKETS = 1 << 16  # rows for pairs of tokens
BATCH = 32
TABLE_RATE, HEAD_RATE = 0.003, 0.01  # Adam's
MOST_TOKENS = 512
PAIR_FACTOR = 1_000_003  # odd, so the first token of a pair alone already spreads over all BUCKETS


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """An `OutcomeTable` is a frozen table.

    Attributes:
        rows: (vocabulary + BUCKETS, dim) float32. vocabulary: how many of its rows are tokens.
    """

    rows: npt.NDArray[np.float32]
    vocabulary: int

    def embed(self, ids: Sequence[Ids]) -> Array:
        """Return (prompts, dim): the mean row of each prompt's tokens and pairs, at unit norm; 0 for a prompt without tokens."""
        x = np.zeros((len(ids), self.rows.shape[1]))
        for row, tokens in enumerate(ids):
            if len(tokens):
                mean = self.rows[token_features(tokens, self.vocabulary)].mean(axis=0, dtype=np.float64)
                x[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return x


def token_features(tokens: Ids, vocabulary: int) -> Ids:
    """Return the rows of the table that a prompt looks up: its first 512 tokens, then their pairs, hashed into buckets."""
    tokens = tokens[:MOST_TOKENS]
    pairs = vocabulary + (tokens[:-1] * PAIR_FACTOR + tokens[1:]) % BUCKETS
    return np.concatenate([tokens, pairs])


def fit_outcome_table(
    ids: Sequence[Ids], quality: Sequence[Array], vocabulary: int, *, dim: int = DIM, seed: int = 0
) -> OutcomeTable:
    """Pre-train on several sources.

    Args:
        ids: token ids below `vocabulary`, one array a prompt, sources one after the other.
        quality: one (rows, models) table a source, NaN where not judged; every row judged somewhere.
    Raises:
        InvalidInputError: rows disagree, or there is nothing to learn from.
        BackendUnavailableError: torch is missing.
    """
    torch = need("torch", "a table learned from outcomes")
    if not len(ids) or len(ids) != sum(map(len, quality)):
        raise InvalidInputError(f"ids, quality: expected equal rows > 0, got {len(ids)} and {sum(map(len, quality))}")
    targets = _tasks(quality)
    features = [token_features(tokens, vocabulary) for tokens in ids]
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(vocabulary + BUCKETS, dim, generator=generator) / dim**0.5
        head = torch.zeros(targets.shape[1], dim)
        bias = torch.zeros(targets.shape[1])
        table, head, bias = (torch.nn.Parameter(t) for t in (table, head, bias))
        sparse = torch.optim.SparseAdam([table], lr=TABLE_RATE)
        dense = torch.optim.Adam([head, bias], lr=HEAD_RATE)
        known = torch.from_numpy(np.isfinite(targets).astype(np.float32))
        wanted = torch.from_numpy(np.nan_to_num(targets).astype(np.float32))
        order = np.random.default_rng(seed).permutation([i for i, f in enumerate(features) if len(f)])
        for rows in np.array_split(order, max(1, len(order) // BATCH)):
            loss = _loss(torch, table, head, bias, [features[i] for i in rows], wanted[rows], known[rows])
            for optimizer in (sparse, dense):
                optimizer.zero_grad()
            loss.backward()
            for optimizer in (sparse, dense):
                optimizer.step()
    return OutcomeTable(np.ascontiguousarray(table.detach().numpy()), vocabulary)


def _loss(torch: Any, table: Any, head: Any, bias: Any, features: list[Ids], wanted: Any, known: Any) -> Any:
    """Return the mean squared error of the known targets of a batch, each row's mean counting once."""
    offsets = np.cumsum([0, *map(len, features[:-1])])
    x = torch.nn.functional.embedding_bag(
        torch.from_numpy(np.concatenate(features)), table, torch.from_numpy(offsets), mode="mean", sparse=True
    )
    squared = (x @ head.T + bias - wanted).square() * known
    return (squared.sum(dim=1) / known.sum(dim=1).clamp(min=1)).mean()


def _tasks(quality: Sequence[Array]) -> Array:
    """Return (rows, tasks) of unit variance, NaN where a row's source lacks the task."""
    blocks = []
    for table in quality:
        difficulty, _ = row_difficulty(table)
        block = np.concatenate([difficulty[:, None], table - difficulty[:, None]], axis=1)
        spread = np.nanstd(block, axis=0)
        blocks.append((block - np.nanmean(block, axis=0)) / np.where(spread > 0, spread, 1.0))
    tasks = np.full((sum(map(len, blocks)), sum(block.shape[1] for block in blocks)), np.nan)
    row = column = 0
    for block in blocks:
        tasks[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return tasks
