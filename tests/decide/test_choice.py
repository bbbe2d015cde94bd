"""What decide promises about the choice, its cause, its gap and rows that cannot be decided, on every instruction set here."""

from tests.support.decide_promises.choice import *  # noqa: F403
