"""`fit` runs one resumable fit of the network: AdamW over shuffled batches, stopped early or after a given number of epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.estimators.checkpoint import RunState, Tensors
from ipr_engine.training.estimators.network_config import NetworkConfig
from ipr_engine.training.estimators.network_module import Parameters, Standard, score, start

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

CHECKPOINT_EPOCHS = 5
SCORE_CELLS = 4_000_000  # models x rows x hidden units scored at once: 32 MB in float64

_UNDECAYED = ("bias", "hidden_bias", "shift")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # AdamW's state of one parameter


@dataclass(frozen=True, eq=False)
class Fitted:
    """A `Fitted` holds parameters (float32) on embeddings standardised by `standard`, the epochs they took, and their validation loss."""

    parts: Parameters
    standard: Standard
    epochs: int
    loss: float | None

    def score(self, x: Array, activation: str) -> Array:
        """Score x (rows, dim) in float64: (rows, models)."""
        wide = {name: value.double() for name, value in self.parts.items()}
        z = torch.from_numpy(self.standard.apply(x))
        models = len(wide["embedding"] if "embedding" in wide else wide["identity"])
        rows = max(1, SCORE_CELLS // (models * len(wide["trunk"])))
        return np.concatenate([score(wide, part, activation).numpy() for part in _batches(z, rows)])


@dataclass(frozen=True, eq=False)
class Part:
    """A `Part` holds the rows of one fit: x (rows, dim), quality (rows, models).

    The hidden layer does not read the trailing `linear_only` columns.
    """

    x: Array
    quality: Array
    linear_only: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """A `Stop` says when a fit ends.

    Attributes:
        epochs: the most.
        validation: (x, quality) whose loss is watched: the parameters of least loss are returned, and the fit ends when
            `config.patience` epochs brought none lower. None: all `epochs` are run and the last parameters returned.
    """

    epochs: int
    validation: tuple[Array, Array] | None = None


@contextmanager
def repeatable() -> Iterator[None]:
    """Run numpy and torch in one thread, and restore torch's own setting afterwards."""
    threads = torch.get_num_threads()
    try:
        with one_thread():
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(
    unit: str,
    part: Part,
    config: NetworkConfig,
    stop: Stop,
    *,
    seed: int,
    run: RunState | None,
    advance: Callable[[int], None],
) -> Fitted:
    """Fit the network to one part of the rows.

    Args:
        unit: name of this fit in the run folder.
        advance: called with the number of epochs just run or resumed.
    """
    x, linear_only, epochs, validation = part.x, part.linear_only, stop.epochs, stop.validation
    standard = Standard.of(x, linear_only)
    kept = run.load(unit) if run is not None else None
    if kept is not None and kept[1]["done"]:
        tensors, facts = kept
        parts = {name: torch.from_numpy(value) for name, value in tensors.items()}
        return Fitted(parts, standard, facts["epochs"], facts["loss"])

    # Parameters start at each candidate's mean quality, so that the first steps need not find it.
    z = standard.apply(x)
    level, shift = _levels(z[:, x.shape[1] - linear_only :], part.quality, config.link)
    loop = _Loop(_tensor(z), _tensor(part.quality), _tensor(level), _tensor(shift), config, seed)
    watched = None if validation is None else (_tensor(standard.apply(validation[0])), _tensor(validation[1]))
    if kept is not None:
        loop.restore(*kept)
        advance(loop.epoch)
    while loop.epoch < epochs and not (watched is not None and loop.epoch - loop.best_epoch >= config.patience):
        loop.run_epoch()
        if watched is not None:
            loop.watch(*watched)
        advance(1)
        if run is not None and loop.epoch % CHECKPOINT_EPOCHS == 0:
            run.save(unit, *loop.state())
    if watched is None:
        fitted = Fitted(loop.current(), standard, loop.epoch, None)
    else:
        fitted = Fitted(loop.best, standard, loop.best_epoch, loop.best_loss)
    if run is not None:
        facts = {"done": True, "epochs": fitted.epochs, "loss": fitted.loss}
        run.save(unit, {name: value.numpy() for name, value in fitted.parts.items()}, facts)
    return fitted


class _Loop:
    """A `_Loop` is a fit under way: all that the next epoch depends on, and the best parameters so far."""

    def __init__(
        self, z: Tensor, quality: Tensor, level: Tensor, shift: Tensor, config: NetworkConfig, seed: int
    ) -> None:
        self.z, self.quality, self.config = z, quality, config
        self.generator = Generator().manual_seed(seed)
        self.parts = start(config, z.shape[1] - shift.shape[1], level, shift, self.generator)
        for part in self.parts.values():
            part.requires_grad_(True)
        decay = dict.fromkeys(self.parts, config.weight_decay) | {"common": config.difficulty_decay}
        decay |= dict.fromkeys(_UNDECAYED, 0.0)
        # One group a parameter: each has its own decay.
        groups = [{"params": [part], "weight_decay": decay[name]} for name, part in self.parts.items()]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        self.epoch, self.best_epoch, self.best_loss = 0, 0, math.inf
        self.best: Parameters = {}

    def run_epoch(self) -> None:
        """Step once through all rows, shuffled."""
        config = self.config
        for rows in _batches(torch.randperm(len(self.z), generator=self.generator), config.batch):
            kept = None
            if config.dropout:
                kept = torch.empty(len(rows), config.hidden).bernoulli_(1 - config.dropout, generator=self.generator)
                kept /= 1 - config.dropout
            predicted = score(self.parts, self.z[rows], config.activation, kept)
            loss = mixed_loss(predicted, self.quality[rows], config.losses, config.link)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
        self.epoch += 1
        # Once an epoch is enough: a fit that diverged does not recover.
        if not all(bool(part.isfinite().all()) for part in self.parts.values()):
            raise InvalidInputError(
                f"config: the fit diverged in epoch {self.epoch} (a weight is no longer finite); "
                f"expected a smaller lr than {config.lr}"
            )

    def watch(self, z: Tensor, quality: Tensor) -> None:
        """Take the present parameters as the best if their loss on these rows is the least so far."""
        # The loss is taken over all rows at once: pairwise is no mean of the batches' losses.
        step = max(1, SCORE_CELLS // (quality.shape[1] * self.config.hidden))
        with torch.no_grad():
            scores = torch.cat([score(self.parts, part, self.config.activation) for part in _batches(z, step)])
            loss = float(mixed_loss(scores, quality, self.config.losses, self.config.link))
        if loss < self.best_loss:
            self.best_epoch, self.best_loss, self.best = self.epoch, loss, self.current()

    def current(self) -> Parameters:
        """Return a copy of the present parameters."""
        return {name: part.detach().clone() for name, part in self.parts.items()}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return tensors and facts from which `restore` goes on to the last bit."""
        tensors = {f"part.{name}": part for name, part in self.current().items()}
        tensors |= {f"best.{name}": part for name, part in self.best.items()}
        for name, part in self.parts.items():
            tensors |= {f"{moment}.{name}": self.optimizer.state[part][moment] for moment in _MOMENTS}
        tensors["generator"] = self.generator.get_state()  # shuffles and dropout go on where they stopped
        facts = {"done": False, "epoch": self.epoch, "best_epoch": self.best_epoch}
        best_loss = self.best_loss if self.best else None  # JSON has no infinity
        return {name: value.numpy() for name, value in tensors.items()}, facts | {"best_loss": best_loss}

    def restore(self, tensors: Tensors, facts: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        kept = {name: torch.from_numpy(value) for name, value in tensors.items()}
        with torch.no_grad():
            for name, part in self.parts.items():
                part.copy_(kept[f"part.{name}"])  # in place: the optimizer holds these very tensors
                self.optimizer.state[part] = {moment: kept[f"{moment}.{name}"] for moment in _MOMENTS}
        self.best = {name.removeprefix("best."): part for name, part in kept.items() if name.startswith("best.")}
        self.generator.set_state(kept["generator"])
        self.epoch, self.best_epoch = facts["epoch"], facts["best_epoch"]
        self.best_loss = math.inf if facts["best_loss"] is None else facts["best_loss"]


def _batches(values: Tensor, size: int) -> list[Tensor]:
    return [values[begin : begin + size] for begin in range(0, len(values), size)]


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _levels(trailing: Array, quality: Array, link: str) -> tuple[Array, Array]:
    """Return level (models,), the score at which each candidate's mean quality is met (the mean of all where it was never
    judged), and shift (models, linear_only), the least-squares slopes on the trailing columns (rows, linear_only)."""
    # Half a success and half a failure are added, so that no level is infinite.
    judged = ~np.isnan(quality)
    overall = (np.nansum(quality) + 0.5) / (judged.sum() + 1)
    mean = (np.nansum(quality, axis=0) + overall) / (judged.sum(axis=0) + 1)  # one row's worth of the overall mean
    shift = np.zeros((quality.shape[1], trailing.shape[1]))
    for m in range(len(shift) if trailing.shape[1] else 0):
        rows = judged[:, m]
        shift[m] = np.linalg.lstsq(trailing[rows], quality[rows, m] - mean[m], rcond=None)[0]
    if link == "identity":
        return mean, shift
    return np.log(mean / (1 - mean)), shift / (mean * (1 - mean))[:, None]  # the sigmoid's slope at the mean


def mixed_loss(score: Tensor, quality: Tensor, weights: Mapping[str, float], link: str) -> Tensor:
    """Return the mix of losses on score and quality, (rows, models) each, by `weights` (name -> weight): a scalar.

    A quality of NaN was not judged and has no influence, whatever stands beside it. With p = sigmoid(score):

        squared        mean over judged pairs of (p - q)^2, of (score - q)^2 where the link is "identity"
        cross_entropy  mean over judged pairs of -q log p - (1 - q) log(1 - p), q any share in [0, 1]
        pairwise       over pairs (i, j) of one row with q_i > q_j: (q_i - q_j) log(1 + exp(score_j - score_i)), divided by the sum
                       of the weights q_i - q_j (RankNet, Burges et al. 2005, weighted by what is at stake)

    Each is divided by what it was summed over, so weights mean the same at any coverage.
    """
    judged = ~quality.isnan()
    target = quality.where(judged, 0.0)
    total = score.new_zeros(())
    for name, weight in weights.items():
        if name == "pairwise":
            value = pairwise(score, target, judged)
        elif name == "cross_entropy":
            value = cross_entropy(score, target, judged)
        else:
            value = squared(score.sigmoid() if link == "sigmoid" else score, target, judged)
        total = total + weight * value
    return total


def squared(predicted: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    """Return the mean squared error. All are (rows, models); `target` holds any finite number where `judged` is False."""
    return _mean((predicted - target).square(), judged)


def cross_entropy(logit: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits."""
    return _mean(softplus(logit) - target * logit, judged)


def pairwise(score: Tensor, target: Tensor, judged: Tensor) -> Tensor:
    """Return the weighted RankNet loss; 0 where no two judged candidates of a row differ."""
    both = judged[:, :, None] & judged[:, None, :]
    weight = ((target[:, :, None] - target[:, None, :]).clamp(min=0.0)).where(both, 0.0)  # (rows, models, models)
    behind = score[:, None, :] - score[:, :, None]  # score_j - score_i
    return (weight * softplus(behind)).sum() / weight.sum().clamp(min=1e-12)


def _mean(values: Tensor, judged: Tensor) -> Tensor:
    return values.where(judged, 0.0).sum() / judged.sum().clamp(min=1)
