"""`fault` tells of an error that nobody foresaw, for logs: its text may hold a prompt."""

from __future__ import annotations

from traceback import format_tb


def fault(error: BaseException) -> str:
    """Return an error's kind and the places that it passed, line by line, without its text."""
    return f"{type(error).__name__}\n{''.join(format_tb(error.__traceback__))}".rstrip()
