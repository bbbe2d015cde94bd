"""A `BundleDescription` is what another process gets of a bundle beside decisions: who the candidates are, and no array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

from ipr_engine.bundle.spec import BundleSpec, HeadsSpec
from ipr_engine.errors import BundleNotFoundError


class TensorsElsewhere(Mapping[str, Any]):
    """A `TensorsElsewhere` stands for the tensors of described heads: whoever reads one is told where they are."""

    def __getitem__(self, name: str) -> NoReturn:
        raise BundleNotFoundError(
            "heads: their tensors did not cross with the decision, only a description of its bundle did; load the bundle in this "
            "process, with Engine.load(path) or Bundle.load(path)"
        )

    def __iter__(self) -> Iterator[str]:
        return self[""]

    def __len__(self) -> int:
        return self[""]


@dataclass(frozen=True, eq=False, repr=False, init=False)  # made as a BundleSpec is
class BundleDescription(BundleSpec):
    """A `BundleDescription` tells of a bundle of another process all that a decision reads; no engine is made of it.

    It has the candidates, prices, calibrations, provenance and hash. Its heads have no tensors; support and path_rows are None.
    Files are named as they lie on the machine that loaded the bundle.
    """

    def __repr__(self) -> str:
        return f"<BundleDescription {self.name!r} {self.hash[:12]}, {len(self.candidates)} candidates>"


def description_of(bundle: BundleSpec) -> dict[str, Any]:
    """Return the fields of a bundle's description."""
    stated = {field.name: getattr(bundle, field.name) for field in fields(BundleSpec)}
    heads = tuple(_described(heads, bundle.names) for heads in bundle.heads)
    return {**stated, "heads": heads, "support": None, "path_rows": None}


def described(stated: dict[str, Any]) -> BundleDescription:
    """Return the description of these fields."""
    return BundleDescription(**stated)


def _described(heads: HeadsSpec, names: tuple[str, ...]) -> HeadsSpec:
    if set(heads.candidates) == set(names):
        heads = heads.in_order(names)  # here: there are no rows to put in order any more
    return replace(heads, tensors=TensorsElsewhere())
