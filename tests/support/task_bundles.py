"""Small bundles whose heads read a table and tasks behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine.bundle import BundleParts, ConcatenatedSource, SurfaceSource, TaskSource, write_bundle
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON
from tests.support.bundles import bundle_parts, make_tensors
from tests.support.surface_bundles import BOTH, SURFACE_DIM, TABLE_DIM

TASKS = ("support-bot", "Übersetzung 日本", "sql")


def task_parts(work: Path, *, models: int = 4, surface: bool = False, **shape: Any) -> dict[str, Any]:
    """Return the arguments of `write_bundle`; surface: whether surface features stand behind the tasks."""
    parts = bundle_parts(work, models=models, dim=TABLE_DIM, **shape)
    features = [SurfaceSource(id="surface", lexicon=DEFAULT_LEXICON)] if surface else []
    ids = ("static", "tasks", *(source.id for source in features))
    others = [TaskSource(id="tasks", names=TASKS), *features, ConcatenatedSource(id=BOTH, parts=ids)]
    dim = TABLE_DIM + len(TASKS) + SURFACE_DIM * surface
    heads = replace(parts["heads"][0], encoder=BOTH, tensors=make_tensors(models=models, dim=dim))
    support = None if parts["support"] is None else replace(parts["support"], encoder=BOTH)
    return {**parts, "encoders": [*parts["encoders"], *others], "heads": [heads], "support": support}


def make_task_bundle(folder: Path, **shape: Any) -> Path:
    """Write such a bundle below folder / "bundles" and return its folder."""
    return write_bundle(folder / "bundles", BundleParts(**task_parts(folder / "sources", **shape)))
