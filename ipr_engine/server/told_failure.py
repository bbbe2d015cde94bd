"""`tell_failure` logs an error that nobody expected, without its own text, which may hold a prompt."""

from __future__ import annotations

from logging import Logger
from traceback import format_tb


def tell_failure(logger: Logger, what: str, error: Exception) -> None:
    """Log that something failed: of the error, its kind and its place alone. what: failed."""
    logger.error("%s failed: %s\n%s", what, type(error).__name__, "".join(format_tb(error.__traceback__)))
