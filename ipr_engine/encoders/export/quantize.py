"""This file turns linear maps into int8: 7-bit weights, rounded so that the error on real inputs is least (GPTQ, arXiv 2210.17323).

Weights lie in [-63, 63], so that AVX2's vpmaddubsw, which adds two products of an unsigned and a signed byte in 16 bits, cannot
saturate: 2 * 255 * 63 = 32,130 < 32,768. Inputs are quantised row by row when the graph runs; here they only tell which
columns matter. Columns with large inputs are first made smaller, and their weights larger (SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.encoders.export.bert_weights import Array, Linear

MOST = 63  # 7 bits
SMOOTHING = 0.5  # SmoothQuant's alpha
DAMPING = 0.01  # GPTQ's, of the mean diagonal
_BLOCK = 128  # inputs whose errors are carried on together, in one matrix product


@dataclass(frozen=True)
class Int8Linear:
    """An `Int8Linear` is y = (x / divisor) (weight * scale) + bias; weight (inputs, outputs) int8 in [-63, 63]."""

    weight: NDArray[np.int8]
    scale: Array
    bias: Array


def quantize_together(linears: Sequence[Linear], x: Array) -> tuple[Array, list[Int8Linear]]:
    """Quantise the maps of one input: return the divisor of its columns (inputs,), and each map for the input so divided.

    Args:
        x: (rows, inputs), the maps' input on real prompts.
    """
    largest = np.maximum(np.abs(x).max(axis=0), 1e-5)  # (inputs,)
    largest_weight = np.maximum(np.max([np.abs(own.weight).max(axis=1) for own in linears], axis=0), 1e-5)  # (inputs,)
    divisor = (largest**SMOOTHING / largest_weight ** (1 - SMOOTHING)).astype(np.float32)
    factor = _inverse_factor((x / divisor).astype(np.float64))
    made = []
    for own in linears:
        scaled = own.weight * divisor[:, None]  # (inputs, outputs)
        scale = np.maximum(np.abs(scaled).max(axis=0), 1e-12) / MOST  # (outputs,)
        weight = _round(scaled.astype(np.float64), scale.astype(np.float64), factor)
        made.append(Int8Linear(weight, scale.astype(np.float32), own.bias))
    return divisor, made


def _inverse_factor(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper Cholesky factor of the damped inverse of x^T x, (inputs, inputs)."""
    hessian = x.T @ x  # of the squared error, as a function of one output's weights
    hessian[np.diag_indices_from(hessian)] += DAMPING * np.mean(np.diag(hessian)) + 1e-12
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(hessian)).T)


def _round(weight: NDArray[np.float64], scale: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.int8]:
    """Round input by input; the inputs after each make up for its error, as far as they move together.

    Args:
        weight: (inputs, outputs). scale: (outputs,). factor: of `_inverse_factor`.
    """
    rounded = np.empty(weight.shape, dtype=np.int8)
    weight = weight.copy()
    inputs = len(weight)
    for begin in range(0, inputs, _BLOCK):
        end = min(begin + _BLOCK, inputs)
        errors = np.empty((end - begin, weight.shape[1]))
        for row in range(begin, end):
            rounded[row] = np.clip(np.rint(weight[row] / scale), -MOST, MOST)
            errors[row - begin] = (weight[row] - rounded[row] * scale) / factor[row, row]
            # at once within the block; for the inputs behind it, once a block
            weight[row:end] -= factor[row, row:end, None] * errors[row - begin]
        weight[end:] -= factor[begin:end, end:].T @ errors
    return rounded


def linear_inputs(model: Any, ids: Sequence[NDArray[np.int64]], embed: Any) -> dict[str, Array]:
    """Return the inputs of a BERT-shaped model's linear maps on these rows: "layer0.query" -> (tokens, inputs).

    Key and value have the input of query and no entry. embed: runs the model on one row.
    """
    seen: dict[str, list[Array]] = {}
    places = {
        "query": "attention.self.query",
        "output": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    }

    def keep(name: str) -> Any:
        def hook(_: Any, given: tuple[Any, ...]) -> None:
            seen.setdefault(name, []).append(given[0].detach().reshape(-1, given[0].shape[-1]).numpy().copy())

        return hook

    hooks = [
        model.get_submodule(f"encoder.layer.{number}.{place}").register_forward_pre_hook(keep(f"layer{number}.{part}"))
        for number in range(model.config.num_hidden_layers)
        for part, place in places.items()
    ]
    try:
        for row in ids:
            embed([row])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: np.concatenate(parts) for name, parts in seen.items()}


# The prompts of linear_inputs where a caller gives none: a little of what people ask LLMs.
CALIBRATION_PROMPTS = (
    "Why is the sky blue?",
    "What is the capital of Australia, and how many people live there?",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did Natalia "
    "sell altogether in April and May? Think step by step and give the final number.",
    "Solve for x: 3x^2 - 12x + 7 = 0. Round to two decimals.",
    "Let $f(x) = \\frac{x^2+1}{x-2}$. Find all real $x$ with $f(x) = 5$, and put your answer in \\boxed{}.",
    "def merge(a, b):\n    out = []\n    while a and b:\n        out.append(a.pop(0) if a[0] < b[0] else b.pop(0))\n    "
    "return out + a + b\n\nWhat is its running time, and how can it be made linear?",
    "Write a SQL query that lists every customer who placed more than three orders in 2024, with the sum of what they paid.",
    "My Kubernetes pod is stuck in CrashLoopBackOff with exit code 137. What does that mean and how do I find the cause?",
    "Translate into German: The committee will meet again on Tuesday to discuss next year's budget.",
    "Résume ce texte en deux phrases : Le conseil municipal a voté hier soir la rénovation de la vieille halle du marché.",
    "¿Cuál es la diferencia entre ser y estar? Dame tres ejemplos de cada uno.",
    "请用简单的语言解释什么是量子纠缠。",
    "日本の四季について短い詩を書いてください。",
    "Напиши вежливое письмо коллеге с просьбой перенести встречу на пятницу.",
    "Summarize the following review in one sentence: The battery lasts two days and the screen is gorgeous, but the camera "
    "struggles at night and the phone gets hot while charging. For the price I expected better.",
    "Is this sentence positive, negative or neutral? 'I waited forty minutes for a cold pizza.'",
    "Which of the following is a noble gas?\nA. Nitrogen\nB. Argon\nC. Chlorine\nD. Hydrogen\nAnswer with one letter.",
    "A 54-year-old man presents with crushing chest pain radiating to the left arm for 40 minutes. ECG shows ST elevation in "
    "II, III and aVF. Which artery is most likely occluded?",
    "Under the doctrine of promissory estoppel, when may a promise without consideration be enforced?",
    "Draft a short, friendly e-mail that tells our customers about two hours of maintenance on Sunday night.",
    "Write a limerick about a cat who learns to program in Rust.",
    'Call the right function. Functions: [{"name": "get_weather", "parameters": {"city": "string", "unit": "string"}}]\n'
    "User: Do I need an umbrella in Oslo tomorrow?",
    "Continue the story: The lighthouse had been dark for eleven years when Mara saw the lamp turn.",
    "Give me a seven-day vegetarian meal plan with about 2,000 kcal a day, as a table.",
    "Fix the grammar: he dont knows wether they was going too the libary",
    "What are the pros and cons of index funds compared with picking single stocks?",
    "Explain the difference between TCP and UDP to a ten-year-old.",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n        self.items.append(item)\n\n"
    "Add pop and peek, raise IndexError when it is empty, and write three unit tests.",
    "If all bloops are razzies and some razzies are lazzies, are some bloops necessarily lazzies? Explain.",
    "Plan a three-day trip to Lisbon for a family with two small children; we like trams, tiles and custard tarts.",
    "hi",
    "thanks, that worked! one more thing: can you make the heading blue?",
)
