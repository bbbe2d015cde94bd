"""How long candidates take to answer, from recorded answers: what `performance` of a bundle holds (docs/usage.md)."""

from ipr_engine.performance.answers import Answers, read_answers
from ipr_engine.performance.timing import Interval, Refusal, TimingFit, fit_timing

__all__ = ["Answers", "Interval", "Refusal", "TimingFit", "fit_timing", "read_answers"]
