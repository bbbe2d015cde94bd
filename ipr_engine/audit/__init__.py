"""This room writes each decision as one line, a decision record, and decides it again.

record.py is the line, recorder.py writes it, replay.py reads it back and decides it again. owner_key.py seals what a line holds of a
prompt. The form of a line: docs/formats.md.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipr_engine.audit.owner_key import OwnerKey
    from ipr_engine.audit.recorder import MIN_WORDS, Recorder

__all__ = ["MIN_WORDS", "OwnerKey", "Recorder"]


def __getattr__(name: str) -> object:
    """Load the recorder when it is first asked for: the engine names it in its signatures, and imports should be quick."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ipr_engine.audit import owner_key, recorder

    return next(getattr(module, name) for module in (recorder, owner_key) if hasattr(module, name))
