"""Decision records: a decision as one line, and deciding it again.

record.py is the line, recorder.py writes it, replay.py reads it back and decides it again. owner_key.py seals what a line holds of a
prompt. The form of a line: docs/formats.md.
"""
