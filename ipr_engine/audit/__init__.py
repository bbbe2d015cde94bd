"""This room writes each decision as one line, a decision record, and decides it again.

record.py is the line, recorder.py decides and record_writer.py writes it, replay.py reads it back and decides it again.
exploration.py draws who is asked in the policy's place. owner_key.py seals what a line holds of a prompt. The form of a line:
docs/formats.md.
"""

from typing import TYPE_CHECKING

from ipr_engine._lazy_names import lazy_names

if TYPE_CHECKING:
    from ipr_engine.audit.exploration import Explorer
    from ipr_engine.audit.owner_key import OwnerKey
    from ipr_engine.audit.record_writer import MIN_WORDS, RecordWriter
    from ipr_engine.audit.recorder import Recorder
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Explorer": "ipr_engine.audit.exploration",
            "MIN_WORDS": "ipr_engine.audit.record_writer",
            "OwnerKey": "ipr_engine.audit.owner_key",
            "RecordWriter": "ipr_engine.audit.record_writer",
            "Recorder": "ipr_engine.audit.recorder",
        },
    )

__all__ = ["MIN_WORDS", "Explorer", "OwnerKey", "RecordWriter", "Recorder"]
