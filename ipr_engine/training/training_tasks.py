"""This file says which tasks heads are to tell apart: those that enough prompts are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ipr_engine._validate import shown, shown_each
from ipr_engine.bundle.task_names import MOST_TASKS

FEWEST_PROMPTS = 20  # of a task: fewer say little of it, and leave folds without any


def learnt_tasks(
    tasks: Sequence[str | None], progress: Callable[[str], None] = lambda message: None
) -> Mapping[str, int]:
    """Return the tasks that get a column, sorted by name, with how many prompts are for each; empty where they tell nothing apart.

    A task of fewer than 20 prompts gets none, nor do all but the 256 most frequent ones; that is told.
    """
    counts = Counter(task for task in tasks if task is not None)
    enough = [task for task, count in counts.most_common() if count >= FEWEST_PROMPTS]
    few = sorted(set(counts) - set(enough))
    if few:
        progress(f"tasks of fewer than {FEWEST_PROMPTS} prompts are taken for prompts without one: {shown_each(few)}")
    if len(enough) > MOST_TASKS:
        progress(f"{len(enough)} tasks have enough prompts, and the {MOST_TASKS} most frequent ones are told apart")
    kept = sorted(enough[:MOST_TASKS])
    if not kept or (len(kept) == 1 and counts[kept[0]] == len(tasks)):
        why = f"every prompt is for {shown(kept[0])}" if kept else "none has enough prompts"
        progress(f"no tasks are told apart: {why}")
        return {}
    named = ", ".join(f"{shown(task)} {counts[task]}" for task in kept[:8])
    progress(
        f"{len(kept)} tasks are told apart: {named}{' ...' if len(kept) > 8 else ''}; "
        f"{len(tasks) - sum(counts[task] for task in kept)} prompts without one of them"
    )
    return {task: counts[task] for task in kept}
