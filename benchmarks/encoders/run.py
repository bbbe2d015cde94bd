"""`bench_encoder` is the whole of `ipr bench encoder`: it opens, checks, and times cell by cell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.encoders.manifest import Export, read_export
from ipr_engine.encoders.tokenizer import read_tokenizer
from ipr_engine.errors import BackendUnavailableError, EncoderMismatchError, InvalidInputError

from ..harness.results import Line
from ..load.lengths import text_of
from ..peers.subject import Absent, Subject
from .cells import Cell, check, time_cell, time_decide
from .roofs import layers_of, measure_roofs
from .subjects import open_subjects

LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 8, 32, 64)
MIXED = (8, 256)  # a batch of mixed lengths: log-uniform between these
# Coarse checks that it is the same model. What int8 costs in routing is measured apart; bfloat16-mixed has a gate of its own.
LEAST_COSINE = {"int8": 0.9, "bfloat16-mixed": 0.999}
COSINE = 0.9999  # the least of every other subject


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`Settings` says what `bench_encoder` is asked for.

    Attributes:
        lengths: ids of a prompt with its special ones; those above the export's max_tokens are left out.
        batches: prompts a call. mixed: batches of mixed lengths, too; None is 32 where lengths and batches are as by default.
        most_ids: cells of more ids than this in a call are left out.
        threads: of each subject, >= 1.
        seconds: a cell.
        only: names of subjects; None is all.
    """

    lengths: Sequence[int] = LENGTHS
    batches: Sequence[int] = BATCHES
    mixed: Sequence[int] | None = None
    most_ids: int = 8192
    threads: int = 0
    seconds: float = 20.0
    device: str = "cpu"
    only: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lengths", "batches"):
            values = getattr(self, name)
            if not values or any(type(value) is not int or value < 1 for value in values):
                raise InvalidInputError(f"{name}: expected ints >= 1, got {list(values)}")
        if not self.seconds > 0:
            raise InvalidInputError(f"seconds: expected more than 0, got {self.seconds}")


def bench_encoder(
    folder: Path, model: Path | None, settings: Settings, progress: Callable[[str], None]
) -> Iterator[Line]:
    """Yield lines of figures, each subject's and stage's of each cell; the first holds roofs, cosines and who is absent.

    Raises:
        InvalidInputError, BackendUnavailableError: nothing of what was asked for can run.
        EncoderMismatchError: a subject does not embed as the reference does.
    """
    export = read_export(folder)
    threads = settings.threads or len(os.sched_getaffinity(0))
    progress(f"measuring the roofs, {threads} thread(s)")
    roofs = measure_roofs(threads)
    subjects, absent = _open(export, model, settings, threads, progress)
    base = next((subject for subject in subjects if subject.ours), subjects[0])
    reference = next((s for s in subjects if s.name in ("torch", "plain ONNX Runtime")), base)
    special = len(export.spec.before) + len(export.spec.after)
    count = read_tokenizer(export.spec.tokenizer).count
    rng = np.random.default_rng(settings.seed)

    def prompt(ids: int) -> str:
        return text_of(max(ids - special, 1), count, rng)

    progress("checking that all embed alike")
    cosines = check(subjects, [prompt(ids) for ids in (9, 33, 60)], reference)
    for name, cosine in cosines.items():
        least = next((bound for kind, bound in LEAST_COSINE.items() if kind in name), COSINE)
        if cosine < least:
            raise EncoderMismatchError(f"{name}: cosine {cosine} with {reference.name} is below {least}: another model")
    yield {
        "op": "encoder",
        "impl": "machine",
        "model": export.name,
        "threads": threads,
        "roof_gflops": round(roofs.gflops, 1),
        "roof_gb_per_s": round(roofs.gb_per_s, 1),
        "cosine_with": reference.name,
        "cosine": cosines,
        "absent": {missing.name: missing.reason for missing in absent},
    }
    sizes = layers_of(export)
    for cell in _cells(settings, export, prompt, rng, progress):
        progress(f"{cell.label} tokens x {cell.batch}")
        yield from time_cell(
            cell,
            subjects,
            base.name,
            seconds=settings.seconds,
            roofs=roofs,
            sizes=sizes,
            on_failure=lambda name, reason: progress(f"{name} fails here: {reason}"),
        )
    for batch in sorted(set(settings.batches)):
        yield time_decide(export.dim, batch)


def _open(
    export: Export, model: Path | None, settings: Settings, threads: int, progress: Callable[[str], None]
) -> tuple[list[Subject], list[Absent]]:
    subjects: list[Subject] = []
    absent: list[Absent] = []
    opened = open_subjects(export, model, threads=threads, device=settings.device, only=settings.only)
    for found in opened:
        if isinstance(found, Absent):
            progress(f"{found.name} does not run here: {found.reason}")
            absent.append(found)
        else:
            subjects.append(found)
    if not subjects:
        raise BackendUnavailableError("no tier and no peer can run here: " + "; ".join(a.reason for a in absent))
    return subjects, absent


def _cells(
    settings: Settings, export: Export, prompt: Callable[[int], str], rng: Any, progress: Callable[[str], None]
) -> Iterator[Cell]:
    for tokens in settings.lengths:
        if tokens > export.max_tokens:
            progress(f"{tokens} tokens are left out: the export takes {export.max_tokens} at most")
            continue
        for batch in settings.batches:
            if tokens * batch > settings.most_ids:
                progress(f"{tokens} tokens x {batch} are left out: more than {settings.most_ids} ids a call")
                continue
            prompts = [prompt(tokens) for _ in range(batch)]
            yield Cell(str(tokens), prompts, (tokens,) * batch)
    low, high = MIXED[0], min(MIXED[1], export.max_tokens)
    usual = (settings.lengths, settings.batches) == (LENGTHS, BATCHES)
    for batch in (32,) * usual if settings.mixed is None else settings.mixed:
        lengths = np.exp(rng.uniform(np.log(low), np.log(high), batch)).astype(int).tolist()
        prompts = [prompt(tokens) for tokens in lengths]
        yield Cell(f"mixed {low}-{high}", prompts, tuple(lengths))
