"""A task that candidates are good at by how long its numbers are, adding them: plans, prompts, and a bundle with its outcome table."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipr_engine.cli.main import main
from tests.support.training_data import train

CREATED = "2026-11-29"
DIGITS = {"big": 7, "middle": 5, "small": 4}
BY_CHANCE = {"big": 0.8, "middle": 0.6, "small": 0.4}
PLAN = """\
prompts: prompts.jsonl
prices_date: '2026-11-29'
budget_usd: {budget}
format: jsonl
providers:
  paid: {{base_url: "{base_url}", limits: {{concurrency: 16, requests_per_minute: 6000}}}}
candidates:
  - {{name: {name}, family: f, provider: paid, model: adding-5, input_usd_per_1m: 0.1, output_usd_per_1m: 0.4, max_tokens: 32}}
graders:
  right: {{kind: numeric}}
"""
MODELS = """\
prices_date: '2026-11-29'
providers:
  paid: {{base_url: "{base_url}", limits: {{concurrency: 16}}}}
candidates:
  - {{name: big, family: f, provider: paid, model: adding-9, input_usd_per_1m: 3, output_usd_per_1m: 15, max_tokens: 32}}
  - {{name: small, family: f, provider: paid, model: adding-2, input_usd_per_1m: 0.1, output_usd_per_1m: 0.4, max_tokens: 32,
     parameters: {{temperature: 0}}}}
graders:
  right: {{kind: numeric}}
"""


def write_prompts(folder: Path, count: int, *, tasks: bool = False) -> Path:
    """Write so many prompts with references, for `ipr init`; return their file. tasks: each says that it is of long or short numbers."""
    draw = random.Random(5)
    numbers = [(draw.randrange(10 ** draw.randint(1, 6)), draw.randrange(100)) for _ in range(count)]
    lines = [
        {"prompt": f"Please add the numbers {a} and {b} and tell the sum.", "reference": str(a + b)}
        | ({"task": "long sums" if a > 999 else "short sums"} if tasks else {})
        for a, b in numbers
    ]
    return _write(folder / "prompts.jsonl", lines)


def run_init(folder: Path, *more: str) -> int:
    """Run `ipr init` on a folder's models.yaml and prompts.jsonl, into its `router`."""
    return main(init_arguments(folder, *more))


def init_arguments(folder: Path, *more: str) -> list[str]:
    """Return the arguments of `run_init`."""
    given = ("--models", str(folder / "models.yaml"), "--prompts", str(folder / "prompts.jsonl"))
    return ["init", *given, "--out", str(folder / "router"), "--budget", "5", *more]


def by_digits(name: str, number: int, draw: random.Random) -> bool:
    """Return whether a candidate adds a number: nearly always up to so many digits, every second time above."""
    return len(str(number)) <= DIGITS[name] if draw.random() < 0.9 else draw.random() < 0.5


def by_chance(name: str, number: int, draw: random.Random) -> bool:
    """Return whether a candidate adds a number, whatever it is: no head can tell such prompts apart."""
    return draw.random() < BY_CHANCE[name]


def write_work(folder: Path, right: Callable[[str, int, random.Random], bool] = by_digits) -> Path:
    """Write a bundle of three candidates below `root`, its `table`, and prompts.jsonl with references, for `ipr add-model`."""
    draw = random.Random(3)
    prompts, outcomes, asked = [], [], []
    for n in range(420):
        a, b = draw.randrange(10 ** draw.randint(1, 7)), 1000 + n
        text = f"Please add the numbers {a} and {b} and tell the sum."
        split = "train" if n < 260 else "calibration" if n < 360 else "test"
        prompts.append(
            {"prompt_id": f"q{n:03d}", "prompt": text, "split": split, "question_key": f"{text} (question {n})"}
        )
        asked.append({"prompt": text, "reference": str(a + b)})
        for name in DIGITS:
            quality = float(right(name, a, draw))
            outcomes.append(
                {"prompt_id": f"q{n:03d}", "model": name, "quality": quality, "input_tokens": 20, "output_tokens": 6}
            )
    (folder / "table").mkdir()
    for file, lines in (("table/prompts", prompts), ("table/outcomes", outcomes), ("prompts", asked)):
        _write(folder / f"{file}.jsonl", lines)
    facts = [
        {"name": name, "family": "f", "provider": "p", "input_usd_per_1m": 3.0 / 4**n, "output_usd_per_1m": 15.0 / 4**n}
        for n, name in enumerate(DIGITS)
    ]
    (folder / "three.json").write_text(json.dumps({"date": CREATED, "candidates": facts}))
    of = {"name": "t", "created": CREATED, "estimator": "plain", "allow_constant": True}
    train(folder / "table", folder / "three.json", folder / "root", **of)
    return folder


def plan(work: Path, base_url: str, name: str = "new", budget: float = 5) -> Path:
    """Write a plan with one new candidate into such a folder; return its file."""
    file = work / f"{name}.yaml"
    file.write_text(PLAN.format(base_url=base_url, name=name, budget=budget) + f"out: collected-{name}\n")
    return file


def run_add_model(work: Path, file: Path, *more: str) -> int:
    """Run `ipr add-model` by a plan."""
    return main(add_model_arguments(work, file, *more))


def add_model_arguments(work: Path, file: Path, *more: str) -> list[str]:
    """Return the arguments of `run_add_model`."""
    given = ("--bundle", str(work / "root"), "--outcomes", str(work / "table"), "--plan", str(file))
    return ["add-model", *given, "--created", CREATED, *more]


def _write(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file
