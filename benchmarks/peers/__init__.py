"""Peers are timed beside ours: other routers, other embedders, and hand-written code that makes the same choice."""
