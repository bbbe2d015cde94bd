"""A `NetworkConfig` holds the settings of a network estimator: its form, its loss and its fit. It is made without torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ipr_engine.errors import InvalidInputError

FORMS = ("paper", "adapters")
ACTIVATIONS = ("relu", "silu", "gelu")
LOSSES = ("squared", "cross_entropy", "pairwise")
LINKS = ("sigmoid", "identity")
# What a form wants where it differs from the field's default; out-of-fold figures on training splits, as those.
OF_FORM: Mapping[str, Mapping[str, Any]] = MappingProxyType({"paper": {"hidden": 256, "loss": "squared"}})


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A `NetworkConfig` holds the settings of a network and of its fit.

    The defaults were chosen by out-of-fold figures on training splits alone.

    Attributes:
        form: "paper": prompt embedding ++ identity embedding -> one hidden layer -> one output, all weights shared.
            "adapters": shared trunk; identity, output and a low-rank adapter per candidate; optionally a linear part.
        hidden: units of the hidden layer.
        identity_dim: numbers of an identity embedding (paper).
        rank: of each candidate's adapter, 0 for none (adapters).
        skip: whether there is a linear part beside the hidden layer (adapters).
        activation: "relu", "silu" or "gelu" (tanh form).
        loss: one of LOSSES, or a mix {name: weight > 0}; `network_fit.mixed_loss` has the formulas.
        link: "sigmoid" or "identity": what squared error compares with quality. The score itself is exported either way,
            and calibrated afterwards.
        lr, weight_decay: AdamW's: each step takes lr * weight_decay off every weight, biases apart. Strong, since qualities
            are noisy. difficulty_decay: the same for the linear part that all candidates share, which needs less.
        batch: rows a step. epochs: at most. patience: epochs without a lower validation loss after which a fit stops.
        dropout: share of hidden units left out at each row while fitting, one choice for all candidates.
    Raises:
        InvalidInputError: a value is not as above.
    """

    form: str = "adapters"
    hidden: int = 64
    identity_dim: int = 128
    rank: int = 4
    skip: bool = False
    activation: str = "relu"
    loss: str | Mapping[str, float] = "cross_entropy"
    link: str = "sigmoid"
    lr: float = 3e-4
    weight_decay: float = 10.0
    difficulty_decay: float = 0.1
    batch: int = 256
    epochs: int = 200
    patience: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("form", FORMS), ("activation", ACTIVATIONS), ("link", LINKS)):
            if getattr(self, name) not in known:
                raise InvalidInputError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, least in (
            ("hidden", 1), ("identity_dim", 1), ("rank", 0), ("batch", 1), ("epochs", 1), ("patience", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InvalidInputError(f"{name}: expected an int >= {least}, got {value!r}")
        for name in ("lr", "weight_decay", "difficulty_decay", "dropout"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise InvalidInputError(f"{name}: expected a finite number >= 0, got {value!r}")
        if self.lr == 0 or self.dropout >= 1:
            raise InvalidInputError(f"lr, dropout: expected lr > 0 and dropout < 1, got {self.lr} and {self.dropout}")
        if type(self.skip) is not bool:
            raise InvalidInputError(f"skip: expected True or False, got {self.skip!r}")
        if isinstance(self.loss, Mapping):
            object.__setattr__(self, "loss", dict(self.loss))  # a copy: frozen means frozen
        mix = self.losses if isinstance(self.loss, str | dict) else {}
        if not mix or not set(mix) <= set(LOSSES):
            raise InvalidInputError(f"loss: expected one or a mix of {', '.join(LOSSES)}, got {self.loss!r}")
        if not all(type(weight) in (int, float) and 0 < weight < math.inf for weight in mix.values()):
            raise InvalidInputError(f"loss: expected finite weights > 0, got {self.loss!r}")
        if "cross_entropy" in mix and self.link != "sigmoid":
            raise InvalidInputError("link: expected 'sigmoid' with cross_entropy, got 'identity'")

    @classmethod
    def of(cls, form: str, options: Mapping[str, Any]) -> NetworkConfig:
        """Return the defaults of a form, changed by `options` (field -> value)."""
        known = [field.name for field in dataclasses.fields(cls) if field.name != "form"]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InvalidInputError(f"options: expected some of {', '.join(known)}, got {', '.join(unknown)}")
        return cls(form=form, **{**OF_FORM.get(form, {}), **options})

    @property
    def losses(self) -> dict[str, float]:
        """The mix of losses: name -> weight."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else dict(self.loss)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
