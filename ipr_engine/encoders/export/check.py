"""This file checks an exported graph against the float32 model: cosines on a fixed sample, each row alone and padded in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.encoders.cpu_runs import import_onnxruntime
from ipr_engine.encoders.openvino import COSINES, GATES, compile_graph
from ipr_engine.encoders.transformer import TransformerEncoder, padded
from ipr_engine.errors import InvalidInputError, IprError

MIN_COSINE = GATES["float32"]  # float32 against float32
MIN_COSINE_FLOAT16 = 0.9999  # of the float16 weights, and of every tier that runs in float16
MIN_COSINE_INT8 = 0.98  # far below what is measured (docs/encoders.md); a graph below it is broken
TEXTS = (
    "Why is the sky blue?",
    "Write a Python function that merges two sorted lists, and explain its running time.",
    "Was kostet ein Brötchen? 価格を教えてください。 Сколько это стоит?",
    "A train leaves at 9:40 and travels 126 km at 84 km/h. When does it arrive?\nAnswer with the time only.",
)
# Ids a row; those below the model's limit are used.
LENGTHS = (1, 2, 3, 5, 8, 16, 33, 64, 100, 128, 200, 256, 400, 512)
# (ids, mask), each (batch, tokens) -> (batch, dim)
Embed = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


def sample(reference: TransformerEncoder) -> list[NDArray[np.int64]]:
    """Return rows of ids: the fixed texts, then drawn from the vocabulary (seed 0) at every length up to the model's own limit."""
    rng = np.random.default_rng(0)
    ids = np.arange(reference.tokenizer.max_id + 1)
    ids = ids[ids != reference.spec.pad_id]  # RoBERTa counts no position for it, and no prompt has it
    special = len(reference.spec.before) + len(reference.spec.after)
    drawn = [
        np.concatenate(
            [
                reference.spec.before,
                rng.choice(ids, max(1, tokens - special)),
                reference.spec.after,
            ]
        ).astype(np.int64)
        for tokens in (*(length for length in LENGTHS if length < reference.max_tokens), reference.max_tokens)
    ]
    return [row for row in [*reference.ids(TEXTS), *drawn] if len(row) <= reference.max_tokens]


def embedded_alone(reference: TransformerEncoder, rows: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Embed by the reference, (rows, dim), each row on its own, so that no padding enters."""
    return np.concatenate([reference.embed([ids]) for ids in rows])


def worst_cosine(x: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    """Return the smallest cosine between corresponding rows; NaN where a row is not finite."""
    a, b = x.astype(np.float64), want.astype(np.float64)  # (rows, dim)
    cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(np.min(cosines))


def check_cosine(what: str, cosine: float, least: float) -> float:
    """Return the cosine, rounded for the manifest; InvalidInputError where it is below the least."""
    if not cosine >= least:  # so that NaN fails too
        raise InvalidInputError(
            f"{what}: its embeddings differ from those of the float32 model: smallest cosine {cosine:.7f}, expected at least "
            f"{least}; this architecture cannot be exported"
        )
    return round(min(cosine, 1.0), 8)


def check_standard_graph(path: Path, rows: list[NDArray[np.int64]], want: NDArray[np.float32], pad_id: int) -> float:
    """Check model.onnx: every row alone, the texts padded beyond their longest, and a third of the drawn rows to the longest."""
    embed = _session(path)
    alone = np.concatenate([embed(ids[None], np.ones((1, len(ids)), np.int64)) for ids in rows])
    cosines = [worst_cosine(alone, want)]
    longest = max(map(len, rows))
    texts, drawn = list(range(min(len(TEXTS), len(rows)))), list(range(len(TEXTS), len(rows), 3))
    for mates, tokens in ((texts, min(longest, 2 * len(rows[0]) + 37)), (drawn, longest)):
        mates = [index for index in mates if len(rows[index]) <= tokens]
        if mates:
            filled, mask = padded([rows[index] for index in mates], tokens, pad_id)
            cosines.append(worst_cosine(embed(filled, mask), want[mates]))
    return check_cosine(path.name, float(np.min(cosines)), MIN_COSINE)


def check_rows_graph(path: Path, rows: list[NDArray[np.int64]], want: NDArray[np.float32], least: float) -> float:
    """Check a graph for rows of one length: every row alone, and three times over."""
    embed = _session(path)
    cosines = []
    for ids, expected in zip(rows, want, strict=True):
        for copies in (1, 3):
            x = embed(np.repeat(ids[None], copies, axis=0), np.empty((0, 0), np.int64))  # the graph takes no mask
            cosines.append(worst_cosine(x, np.repeat(expected[None], copies, axis=0)))
    return check_cosine(path.name, float(np.min(cosines)), least)


def openvino_cosines(path: Path, rows: list[NDArray[np.int64]], want: NDArray[np.float32]) -> dict[str, float]:
    """Run model.onnx by OpenVINO, where it is installed: every row alone and twice over, in each precision of this processor.

    Returns:
        What the openvino tier's gate reads in the manifest, which refuses a graph below it; nothing of a precision, or of a
        graph, that OpenVINO cannot run here.
    """
    cosines = {}
    for dtype, name in COSINES.items():
        try:
            request = compile_graph(path, dtype, 1).create_infer_request()
        except IprError:  # the tier says so where it is asked for
            continue
        least = 1.0
        for ids, expected in zip(rows, want, strict=True):
            for copies in (1, 2):
                filled = np.repeat(ids[None], copies, axis=0)
                x = request.infer({"input_ids": filled, "attention_mask": np.ones_like(filled)})[0]
                least = np.minimum(least, worst_cosine(x, np.repeat(expected[None], copies, axis=0)))
        cosines[name] = round(float(np.nan_to_num(least, nan=-1.0)), 8)
    return cosines


def _session(path: Path) -> Embed:
    """Open a graph in ONNX Runtime on the CPU; the function it returns passes the inputs that the graph has."""
    runtime: Any = import_onnxruntime("checking an exported encoder", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = [given.name for given in session.get_inputs()]

    def embed(input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        x: NDArray[np.float32] = session.run(["embedding"], {name: given[name] for name in wanted})[0]
        return x

    return embed
