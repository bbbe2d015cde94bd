"""A `Budget` holds the caps of a collection: nothing is sent whose most possible cost does not fit beside what is spent and in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ipr_engine.errors import IprError


class BudgetSpentError(IprError):
    """A cap leaves no room for one more call. of: the candidate whose cap it is; None: the plan's."""

    def __init__(self, of: str | None) -> None:
        self.of = of
        super().__init__("budget_usd: is spent" if of is None else f"budget_usd of {of}: is spent")


@dataclass
class _Account:
    """A cap, what was charged against it, and what calls in flight may still cost; whole nano-USD. cap: None: none."""

    cap: int | None
    charged: int = 0
    reserved: int = 0
    in_flight: int = 0

    def has_room(self, most: int) -> bool:
        return self.cap is None or self.charged + self.reserved + most <= self.cap


class Budget:
    """A `Budget` is shared by all calls of one event loop; amounts are whole nano-USD (`bill.nanousd`)."""

    def __init__(self, cap: int, caps: Mapping[str, int | None], charged: Mapping[str, int]) -> None:
        """Begin.

        Args:
            cap: of all calls. caps: candidate -> its own; None: none.
            charged: candidate -> what was spent before; others than those of caps count, too.
        """
        self._whole = _Account(cap, sum(charged.values()))
        self._accounts = {name: _Account(own, charged.get(name, 0)) for name, own in caps.items()}
        self._settled = asyncio.Condition()

    @property
    def charged(self) -> int:
        """What was spent, earlier runs of the ledger included."""
        return self._whole.charged

    @property
    def reserved(self) -> int:
        """What calls in flight may still cost."""
        return self._whole.reserved

    async def reserve(self, candidate: str, most: int) -> None:
        """Set aside the most that a call can cost; wait where only calls in flight are in the way.

        Raises:
            BudgetSpentError: nothing in flight could make room.
        """
        own = self._accounts[candidate]
        async with self._settled:
            while not (self._whole.has_room(most) and own.has_room(most)):
                if not own.has_room(most) and not own.in_flight:
                    raise BudgetSpentError(candidate)
                if not self._whole.has_room(most) and not self._whole.in_flight:
                    raise BudgetSpentError(None)
                await self._settled.wait()
            for account in (self._whole, own):
                account.reserved += most
                account.in_flight += 1

    async def settle(self, candidate: str, most: int, charged: int) -> None:
        """Replace what was set aside for a call by what it is charged."""
        async with self._settled:
            for account in (self._whole, self._accounts[candidate]):
                account.reserved -= most
                account.in_flight -= 1
                account.charged += charged
            self._settled.notify_all()
