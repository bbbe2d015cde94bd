"""A `Price` says what one candidate costs; this file also has its form in JSON (docs/formats.md), which `checks.price_problem` judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

AMOUNTS = (
    "cached_read_usd_per_1m",
    "cached_write_usd_per_1m",
    "per_image_usd",
    "batch_factor",
    "batch_input_usd_per_1m",
    "batch_output_usd_per_1m",
    "reasoning_usd_per_1m",
)
BASE = ("input_usd_per_1m", "output_usd_per_1m", "fixed_usd", "basis")  # every price file states these
REQUIRED = BASE[:2]
CACHED = ("cached_read_usd_per_1m", "cached_write_usd_per_1m")


@dataclass(frozen=True, kw_only=True)
class PriceTier:
    """A `PriceTier` prices all of a request of more than `above_tokens` input tokens, input and output.

    cached_read_usd_per_1m, cached_write_usd_per_1m: None keeps the share that the base price of cached input has of the base input.
    """

    above_tokens: int
    input_usd_per_1m: float
    output_usd_per_1m: float
    cached_read_usd_per_1m: float | None = None
    cached_write_usd_per_1m: float | None = None


@dataclass(frozen=True, kw_only=True)
class Price:
    """A `Price` says what one candidate costs.

    Every number is >= 0, all may be 0, and tokens are counted as the candidate counts them.

    Attributes:
        input_usd_per_1m, output_usd_per_1m: USD per 1 M tokens, up to the first tier's `above_tokens`.
        fixed_usd: USD per request.
        basis: says where the numbers come from.
        tiers: prices of longer requests, by rising `above_tokens`.
        cached_read_usd_per_1m: of input tokens that the provider has in its cache; None: as other input.
        cached_write_usd_per_1m: of input tokens that it writes there; None: as other input.
        cache_ttl_s: how long they stay, in seconds; None where not known: then `cached_tokens` by name never expire.
        cache_min_tokens: fewer tokens are neither written nor read.
        per_image_usd: USD per image of a request.
        batch_factor: what every token price is multiplied with in a batch; or
        batch_input_usd_per_1m, batch_output_usd_per_1m: the token prices there; tiers and cached input keep their share of them.
        reasoning_usd_per_1m: of output tokens that are reasoning; None: as other output.
        reasoning_share: how much of the output is expected to be reasoning, in [0, 1]; beside a price of it. None: not known, and
            expected costs count every output token as other output.
    """

    input_usd_per_1m: float
    output_usd_per_1m: float
    fixed_usd: float = 0.0
    basis: str
    tiers: tuple[PriceTier, ...] = ()
    cached_read_usd_per_1m: float | None = None
    cached_write_usd_per_1m: float | None = None
    cache_ttl_s: float | None = None
    cache_min_tokens: int = 0
    per_image_usd: float = 0.0
    batch_factor: float | None = None
    batch_input_usd_per_1m: float | None = None
    batch_output_usd_per_1m: float | None = None
    reasoning_usd_per_1m: float | None = None
    reasoning_share: float | None = None

    @property
    def is_free(self) -> bool:
        """Return whether no request costs anything."""
        numbers = [self.input_usd_per_1m, self.output_usd_per_1m, self.fixed_usd, self.per_image_usd]
        numbers += [self.cached_write_usd_per_1m or 0, self.reasoning_usd_per_1m or 0]
        numbers += [price for tier in self.tiers for price in (tier.input_usd_per_1m, tier.output_usd_per_1m)]
        return not any(numbers)

    @property
    def levels(self) -> tuple[PriceTier, ...]:
        """The base price and the tiers, each with its prices of cached input stated; the first is above 0 tokens.

        Where reading or writing is not priced, it costs as other input.
        """
        base = PriceTier(
            above_tokens=0,
            input_usd_per_1m=self.input_usd_per_1m,
            output_usd_per_1m=self.output_usd_per_1m,
            cached_read_usd_per_1m=self.cached_read_usd_per_1m,
            cached_write_usd_per_1m=self.cached_write_usd_per_1m,
        )
        return tuple(
            replace(
                tier,
                cached_read_usd_per_1m=_cached("cached_read_usd_per_1m", tier, base),
                cached_write_usd_per_1m=_cached("cached_write_usd_per_1m", tier, base),
            )
            for tier in (base, *self.tiers)
        )

    def output_usd(self, other_usd_per_1m: float) -> float:
        """Return USD per 1 M output tokens as expected, where those that are no reasoning cost `other_usd_per_1m`."""
        share, usd = self.reasoning_share, self.reasoning_usd_per_1m
        if share is None or usd is None:
            return other_usd_per_1m
        return (1.0 - share) * other_usd_per_1m + share * usd

    def in_batch(self) -> Price:
        """Return the price of a request in a batch; the same where none is stated."""
        batch_input, batch_output = self.batch_input_usd_per_1m, self.batch_output_usd_per_1m
        if self.batch_factor is not None:
            by_input = by_output = self.batch_factor
        elif batch_input is not None and batch_output is not None:
            by_input, by_output = (
                _share(batch_input, self.input_usd_per_1m),
                _share(batch_output, self.output_usd_per_1m),
            )
        else:
            return self
        made = [
            replace(
                level,
                input_usd_per_1m=level.input_usd_per_1m * by_input,
                output_usd_per_1m=level.output_usd_per_1m * by_output,
                cached_read_usd_per_1m=(level.cached_read_usd_per_1m or 0.0) * by_input,
                cached_write_usd_per_1m=(level.cached_write_usd_per_1m or 0.0) * by_input,
            )
            for level in self.levels
        ]
        if batch_input is not None and batch_output is not None:  # to the bit, not through its share
            made[0] = replace(made[0], input_usd_per_1m=batch_input, output_usd_per_1m=batch_output)
        reasoning = None if self.reasoning_usd_per_1m is None else self.reasoning_usd_per_1m * by_output
        return replace(
            self._with_levels(made),
            reasoning_usd_per_1m=reasoning,
            batch_factor=None,
            batch_input_usd_per_1m=None,
            batch_output_usd_per_1m=None,
        )

    def writing_cache(self) -> Price:
        """Return the price where a request's input is written to the cache.

        From `cache_min_tokens` on, input costs what writing does.
        """
        if self.cached_write_usd_per_1m is None:
            return self
        levels, first = self.levels, max(self.cache_min_tokens - 1, 0)  # more than `first` tokens are written
        made = []
        # The cache's edge becomes one more tier: from there on every level charges input at the price of writing.
        for edge in sorted({first, *(level.above_tokens for level in levels)}):
            level = max((one for one in levels if one.above_tokens <= edge), key=lambda one: one.above_tokens)
            usd = level.cached_write_usd_per_1m if edge >= first else level.input_usd_per_1m
            assert usd is not None  # levels state it
            made.append(replace(level, above_tokens=edge, input_usd_per_1m=usd))
        return self._with_levels(made)

    def _with_levels(self, levels: Sequence[PriceTier]) -> Price:
        """Return the same price with these levels, the first of them as the base."""
        base, *tiers = levels
        return replace(
            self,
            input_usd_per_1m=base.input_usd_per_1m,
            output_usd_per_1m=base.output_usd_per_1m,
            cached_read_usd_per_1m=base.cached_read_usd_per_1m,
            cached_write_usd_per_1m=base.cached_write_usd_per_1m,
            tiers=tuple(tiers),
        )


def _cached(name: str, tier: PriceTier, base: PriceTier) -> float:
    """Return a tier's price of cached input: its own, or the share that the base price of it has of the base input."""
    own, of_base = getattr(tier, name), getattr(base, name)
    if own is not None:
        return float(own)
    return tier.input_usd_per_1m * (1.0 if of_base is None else _share(of_base, base.input_usd_per_1m))


def _share(part: float, whole: float) -> float:
    """Return part / whole; 1 of a whole that costs nothing."""
    return part / whole if whole else 1.0


def price_of(row: Mapping[str, Any], basis: str) -> Price:
    """Return the price of a JSON form in which `price_problem` finds nothing wrong. basis: where the form states none."""
    plain = {"basis": basis, **row}
    plain |= {
        key: float(plain[key])
        for key in (*BASE[:3], *AMOUNTS, "cache_ttl_s", "reasoning_share")
        if plain.get(key) is not None
    }
    plain["tiers"] = tuple(_tier_of(tier) for tier in row.get("tiers", ()))
    return Price(**plain)


def _tier_of(row: Mapping[str, Any]) -> PriceTier:
    """Return the tier of its JSON form."""
    usd = {key: None if value is None else float(value) for key, value in row.items() if key != "above_tokens"}
    return PriceTier(above_tokens=row["above_tokens"], **usd)  # type: ignore[arg-type]


def price_json(price: Price) -> dict[str, Any]:
    """Return the JSON form, which states what differs from the defaults.

    Of a price that says nothing new it is the form of old price files.
    """
    row = {name: _plain(getattr(price, name)) for name in BASE}
    for field in fields(Price):
        value = getattr(price, field.name)
        # A price that says nothing new keeps the bytes of files from before schema_version 6.
        if field.name not in BASE and field.name != "tiers" and value != field.default:
            row[field.name] = value if field.name == "cache_min_tokens" else _plain(value)
    if price.tiers:
        row["tiers"] = [
            {
                field.name: value if field.name == "above_tokens" else _plain(value)
                for field in fields(PriceTier)
                if (value := getattr(tier, field.name)) is not None
            }
            for tier in price.tiers
        ]
    return row


def price_numbers(price: Price) -> dict[str, Any]:
    """Return the JSON form without `basis`, by which two prices are compared."""
    return {key: value for key, value in price_json(price).items() if key != "basis"}


def says_more(price: Price) -> bool:
    """Return whether a price states what bundles before schema_version 6 cannot hold."""
    return price_json(price).keys() != set(BASE)


def _plain(value: Any) -> Any:
    """Return a whole number as a float: 1 and 1.0 are the same number and shall be the same bytes."""
    return float(value) if type(value) is int else value
