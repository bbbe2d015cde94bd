"""A run has callers that wait for their answers (closed loop), or a schedule that does not wait (open loop)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence

from ipr_engine.errors import InvalidInputError

from .async_runner import run_async
from .blocking_runner import run_blocking
from .clock import Clock, MonotonicClock
from .loads import Load, Run
from .targets import Target, is_async
from .threads import INTERRUPTED, Progress, Stop


def run(
    target: Target,
    prompts: Sequence[str],
    load: Load,
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Run:
    """Put the load on the target. Ctrl-C ends it early and keeps what was measured.

    Raises:
        InvalidInputError: not one request was answered; the errors are named.
    """
    found: list[Run] = []
    run_parts(
        target, prompts, [load], found.append, seconds=load.warm_up + load.seconds, clock=clock, progress=progress
    )
    done = found[0]
    if not len(done.measured) and done.stopped != INTERRUPTED:
        errors = "; ".join(f"{count} x {text}" for text, count in done.errors.most_common(3))
        raise InvalidInputError(
            f"target {target.name}: not one request was answered in {load.seconds:g} s after {load.warm_up:g} s of warm-up "
            f"({errors or f'{done.lost.rejected + done.lost_in_warm_up.rejected} rejected'}); give it more time, or a target "
            "that works"
        )
    return done


def run_parts(
    target: Target,
    prompts: Sequence[str],
    loads: Iterable[Load],
    each: Callable[[Run], None],
    *,
    seconds: float,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> None:
    """Run loads one after the other on one session of the target; call `each` with what came of one before the next.

    Args:
        seconds: of all loads together; much later than that the last one is cut.
    """
    if not prompts:
        raise InvalidInputError("prompts: expected at least one, got none")
    clock = MonotonicClock() if clock is None else clock
    stop = Stop()
    gc.collect()
    gc.freeze()  # collections go on, over what the run makes
    try:
        if is_async(target):
            run_async(target, prompts, loads, each, seconds, clock, stop, progress)  # type: ignore[arg-type]
        else:
            run_blocking(target, prompts, loads, each, seconds, clock, stop, progress)  # type: ignore[arg-type]
    finally:
        gc.unfreeze()
