"""How long a forward will take, learnt from those before it."""

from __future__ import annotations

DECAY = 0.95  # a forward counts half after 14 more of them
CLIP = 2.0  # one hiccup moves the estimate little; a lasting slowdown is learnt within some ten forwards


class ForwardCost:
    """time = fixed_us + token_us * padded tokens: least squares over the forwards so far, the older ones counting less.

    Of one encoder; written by the worker alone, read by any thread.

    Attributes:
        fixed_us: what a forward costs whatever is in it. token_us: what a token more costs, padding included.
    """

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder
        self.fixed_us = 0.0
        self.token_us = 0.0
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, padded_tokens: int, us: float) -> None:
        expected = self.predict(padded_tokens)
        if self._weight > 2.5:
            us = min(us, CLIP * expected)
        x = float(padded_tokens)
        self._weight = DECAY * self._weight + 1
        self._x = DECAY * self._x + x
        self._y = DECAY * self._y + us
        self._xx = DECAY * self._xx + x * x
        self._xy = DECAY * self._xy + x * us
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x * mean_x
        slope = self.token_us
        if spread > 0.01 * mean_x * mean_x:  # forwards of one size tell nothing of the slope: the last one known stands
            slope = (self._xy / self._weight - mean_x * mean_y) / spread
        self.token_us = min(max(slope, 0.0), mean_y / mean_x) if mean_x else 0.0  # neither part is negative
        self.fixed_us = mean_y - self.token_us * mean_x

    def predict(self, padded_tokens: int) -> float:
        """Microseconds of a forward; 0 as long as nothing is known."""
        return self.fixed_us + self.token_us * padded_tokens

    @property
    def fixed_tokens(self) -> float:
        """As many tokens as take the fixed part's time: padding up to here costs less than a forward of its own."""
        return self.fixed_us / self.token_us if self.token_us > 0 else float("inf")
