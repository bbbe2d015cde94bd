"""A stand-in plays the driver functions that replay a CUDA graph: a launch stores the request's number, and nothing else is done.

It shows what the host does, and what that takes, with the device's work replaced by nothing; it cannot show that CUDA does the same.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.cuda.driver import GRAPH_CALLS, Driver

CONTEXT, STREAM = 7, 11


class Graph(ctypes.Structure):
    """A `Graph` is what a launch does: it stores `sequence` in `done`, after delay_us (-1: never); codes are those to return.

    torn counts how often the word at `watched` changed between a launch and its end.
    """

    _fields_ = (
        ("sequence", ctypes.c_void_p),
        ("done", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("delay_us", "launch_code", "query_code", "launches", "queries")),
        ("watched", ctypes.c_void_p),
        ("seen", ctypes.c_int32),
        ("torn", ctypes.c_int32),
    )


class GraphDriver:
    """A `GraphDriver` is the compiled stand-in."""

    def __init__(self, folder: Path) -> None:
        path = folder / "libgraphs.so"
        source = Path(__file__).with_name("stand_in_graphs.c")
        flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread"]
        subprocess.run(["gcc", *flags, "-o", path, source], check=True)
        self.library = ctypes.CDLL(str(path))
        self.graphs: list[Graph] = []
        self.kept: list[Any] = []  # by a test whose graph writes later than it ends

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of RecordedRoute."""
        return {"calls": Driver(self.library).addresses(GRAPH_CALLS), "context": CONTEXT, "stream": STREAM}

    def make_current(self, context: int) -> None:
        """Set the calling thread's context, 0 for none, and forget what was pushed."""
        self.library.stand_in_make_current(ctypes.c_void_p(context))

    def drain(self) -> None:
        """Wait for all work of the stream: graphs write into their passes' buffers."""
        self.library.stand_in_drain()

    def graph(self, sequence: np.ndarray[Any, Any], done: np.ndarray[Any, Any]) -> Graph:
        """Make the graph of a pass; `address_of` gives what is launched."""
        made = Graph(sequence=sequence.ctypes.data, done=done.ctypes.data)
        self.graphs.append(made)
        return made


def address_of(graph: Graph) -> int:
    return ctypes.addressof(graph)
