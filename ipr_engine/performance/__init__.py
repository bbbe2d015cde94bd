"""This room fits how long candidates take to recorded answers, for the `performance` of a bundle (docs/usage.md)."""

from ipr_engine.performance.answers import Answers, read_answers
from ipr_engine.performance.timing import Interval, Refusal, TimingFit, fit_timing

__all__ = ["Answers", "Interval", "Refusal", "TimingFit", "fit_timing", "read_answers"]
