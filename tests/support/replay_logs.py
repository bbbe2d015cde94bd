"""Calls of every kind are put into a log here, and read from it."""

import dataclasses

import numpy as np

from ipr_engine import Price
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import ReplaySummary, replay
from ipr_engine.prompts import Needs
from tests.support.bundles import make_candidates, make_prices

PROMPTS = ["what is the sum of two and two", "Explain quicksort, please!", "write a story " * 400, "你好", "a"]
CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why"}]
TERMS = [
    {"tau": 0.0},
    {"tau": 1},
    {"tau": 0.1, "worth": 0.1 + 0.2, "rule": "max", "slack": np.float32(0.1)},
    {"tau": 1 / 3, "rule": "fixed", "allowed": ["alpha/large", "beta/mid"]},
    {"tau": 0.4, "family": {"alpha", "gamma"}, "exclude": ["gamma/small"]},
    {"tau": 0.4, "requires": "tools", "max_latency_ms": 300.5, "exclude": []},
    {"tau": 0.5, "prices": {"beta/mid": (0.1, 7)}},
    {"tau": 0.5, "prices": {"BETA/mid": Price(input_usd_per_1m=1, output_usd_per_1m=1 / 3, basis="x")}},
    {"tau": 0.5, "prices": {"beta/mid": {"input_usd_per_1m": 1, "output_usd_per_1m": 2}}},
    {
        "tau": 0.5,
        "prices": {"beta/mid": Price(input_usd_per_1m=np.float32(0.1), output_usd_per_1m=np.int64(2), basis="x")},
    },
    {"tau": 0.5, "prices": make_prices(make_candidates(5), scale=np.float32(3.7))},
]
KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
WHOLE = {"keep_x": True, "key": KEY}  # a recorder whose records the heads decide again


def summarise(lines, engine):
    summary = ReplaySummary()
    for replayed in replay(lines, engine, key=KEY):
        summary.add(replayed)
    return summary


def opened(line):
    return Record.from_line(line).opened(OwnerKey(KEY))


def bare(record):
    """Return the record as a line of schema 2, which holds the embedding in clear."""
    return dataclasses.replace(
        record, schema_version=2, sealed=None, brief=False, needs=record.needs or Needs({}, None)
    )


def all_equal(lines, *engines, key=None):
    """Whether each line is decided again to the bit by the engine of its bundle; the lines' ids."""
    by_bundle = {engine.bundle.hash: engine for engine in engines}
    ids = []
    for line in lines:
        record = Record.from_line(line)
        [replayed] = replay([line], by_bundle[record.bundle], key=key)
        assert (replayed.differences, replayed.refused) == ((), None)
        ids.append(record.id)
    return ids
