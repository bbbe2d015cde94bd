"""`recorded_route` puts the recordings of all buckets behind one C++ call (csrc/include/ipr/recorded_route.h)."""

from __future__ import annotations

import logging
from typing import Any

from ipr_engine._C import RecordedRoute, Router
from ipr_engine.cuda.buckets import Passes, StreamEncoder
from ipr_engine.errors import OutOfDeviceMemoryError
from ipr_engine.gpu_router.route_slot import RouteSlot

LOGGER = logging.getLogger(__name__)
REPLAYED_FROM_PYTHON = "prompts in one C++ call: %s; they are replayed from Python, which takes longer"


def recorded_route(passes: Passes[RouteSlot], on_cpu: Router, encoder: StreamEncoder) -> RecordedRoute | None:
    """Return the one C++ call from text to decision.

    None where the tokenizer is not C++, torch gives no graph's address, the driver's library does not load, or a graph does not
    answer when it is replayed so once; the log tells the last two.

    on_cpu: the bundle's router in C++.
    """
    if encoder.wordpiece is None:
        return None
    graphs = passes.graphs
    slots = [slot for slots in passes.slots.values() for slot in slots]
    if any(slot.recording.native is None for slot in slots):
        return None
    try:
        native = graphs.native_calls()
    except (OSError, AttributeError) as error:  # a driver under another name, or without one of these functions
        LOGGER.warning(REPLAYED_FROM_PYTHON, error)
        return None
    before, after = encoder.special_ids
    made = RecordedRoute(
        on_cpu,
        encoder.wordpiece,
        before=before,
        after=after,
        max_tokens=encoder.max_tokens,
        pad_id=encoder.pad_id,
        passes=[pass_of(slot) for slot in slots],
        calls=None if native is None else native.addresses,
        context=0 if native is None else native.context,
        stream=0 if native is None else native.stream,
    )
    if native is not None:
        try:
            with graphs.turn:
                made.replay_each()
        except (RuntimeError, OutOfDeviceMemoryError) as error:
            LOGGER.warning(REPLAYED_FROM_PYTHON, error)
            return None
    return made


def pass_of(slot: RouteSlot) -> dict[str, Any]:
    """Return the buffers of a slot, and what replays it, under the names of RecordedPass."""
    beside = {"answers": slot.outputs, "x": slot.x, "done": slot.done, "replay": slot.recording.native}
    return {**slot.inputs.host, **beside}
