"""`TierChoice` is what tier "auto" took on a CPU where several tiers give one encoder: it times them once, and keeps which was fastest.

Tiers of one identity differ in the last bits of an embedding, as one tier does on two kinds of processor; replay goes by identity.
So that noise decides nothing, a later tier of the list is taken only where it needs at most LEAST_GAIN of the first one's time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ipr_engine._version import __version__
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.tiers import TRANSFORMER_TIERS
from ipr_engine.encoders.transformer import TransformerEncoder
from ipr_engine.errors import IprError

CACHE = Path("~/.cache/ipr_engine/tiers")
TOKENS = 64  # of the row that is timed, alone
# A later tier has to gain so much: OpenVINO lies within 0.98 and 1.06 of the onnx tier in docs/encoder-bench.
LEAST_GAIN = 0.9
LEAST_COSINE = 0.9999  # of a later tier's embedding with the first one's: what makes them tiers of one identity
SECONDS = 0.25  # of running, all tiers together
ROUNDS = 3  # at least, however slow the model is; the first run of a shape is not counted
PROSE = (
    "The committee read the report twice before anyone spoke. It said that the bridge could carry half of what it was built for, "
    "that the river had moved two metres to the south since the last survey, and that neither fact was new. Somebody asked what a "
    "repair would cost, and somebody else what it would cost to wait; the engineer had brought a figure for the first question alone."
)
LOGGER = logging.getLogger(__name__)
Encoders = Mapping[str, TransformerEncoder]


@dataclass(frozen=True, kw_only=True)
class TierChoice:
    """A `TierChoice` is a tier, and the times that made it.

    Attributes:
        tier: the one to take. ms: tier -> the median of its calls, one row of `tokens` ids.
    """

    tier: str
    ms: Mapping[str, float]
    tokens: int

    def __str__(self) -> str:
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.ms.items())
        return f"auto took {self.tier} ({times} at {self.tokens} tokens)"


def choice_file(export: Export, tiers: Sequence[str], threads: int | None, dtype: str | None) -> Path:
    """Return the file of the choice: another one for another export, processor, set of cores, number of threads or release of a tier.

    Raises:
        RuntimeError: this user has no home.
    """
    packages = [package for tier in tiers for package in TRANSFORMER_TIERS[tier].packages]
    made_of = {
        "export": export.sha256,
        "dtype": dtype,
        "tiers": list(tiers),
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "versions": {"ipr_engine": __version__, **{package: _version(package) for package in packages}},
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return CACHE.expanduser() / f"{key[:32]}.json"


def read_choice(file: Path, tiers: Sequence[str]) -> TierChoice | None:
    """Return the choice that a file holds; None where there is none, or none of these tiers."""
    try:
        held = json.loads(file.read_bytes())
        choice = TierChoice(
            tier=str(held["tier"]),
            ms={str(name): float(ms) for name, ms in held["ms"].items()},
            tokens=int(held["tokens"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return choice if choice.tier in tiers else None


def measure(encoders: Encoders) -> TierChoice:
    """Time the tiers in turns on one row, and choose: the fastest, or the first where no other gains enough over it."""
    ids = _row(encoders)
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    end = time.perf_counter() + SECONDS
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() < end:
        for name, encoder in encoders.items():
            begun = time.perf_counter()
            encoder.embed([ids])
            seconds[name].append(time.perf_counter() - begun)
        rounds += 1
    return choose({name: 1000 * median(own) for name, own in seconds.items()}, len(ids))


def choose(ms: Mapping[str, float], tokens: int) -> TierChoice:
    """Return the choice that these times make, the first tier before all others."""
    first, fastest = next(iter(ms)), min(ms, key=lambda name: ms[name])
    taken = fastest if ms[fastest] <= LEAST_GAIN * ms[first] else first
    return TierChoice(tier=taken, ms={name: round(own, 3) for name, own in ms.items()}, tokens=tokens)


def keep_choice(file: Path, choice: TierChoice, tiers: Sequence[str]) -> TierChoice:
    """Write a choice unless another process wrote one meanwhile; return the one that counts. OSError where it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w") as written:
            json.dump(asdict(choice), written)
        try:
            os.link(name, file)  # of two processes one alone makes the file
        except OSError:  # it is there, or the file system has no links
            if (before := read_choice(file, tiers)) is not None:
                return before
            os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)
    return choice


def open_fastest(
    export: Export,
    tiers: Sequence[str],
    open_tier: Callable[[str], TransformerEncoder],
    *,
    threads: int | None,
    dtype: str | None,
) -> TransformerEncoder:
    """Open an export on the tier that the kept choice names, or on each to make one; `chosen` of the encoder says which and why.

    A tier behind the first that cannot open the export, or embeds otherwise, is left out with a warning, and nothing is kept.

    Args:
        tiers: at least two that can serve it, the first of them taken where no other gains enough.
        open_tier: opens it on one tier.
    Raises:
        what the first tier raises, or the kept one.
    """
    try:
        file: Path | None = choice_file(export, tiers, threads, dtype)
    except RuntimeError:  # of Path.expanduser
        file = None
    choice = None if file is None else read_choice(file, tiers)
    if choice is not None:
        encoder = open_tier(choice.tier)
    else:
        begun = time.perf_counter()
        encoders = _open_all(export, tiers, open_tier)
        if len(encoders) == 1:
            return encoders[tiers[0]]
        choice, kept = measure(encoders), "not kept"
        if file is not None and len(encoders) == len(tiers):
            try:
                choice, kept = keep_choice(file, choice, tiers), f"kept in {file}"
            except OSError as error:
                kept = f"not kept: {error}"
        encoder = encoders[choice.tier]
        LOGGER.info("%s: %s, measured in %.2f s, %s", export.name, choice, time.perf_counter() - begun, kept)
    encoder.chosen = str(choice)
    return encoder


def _open_all(
    export: Export, tiers: Sequence[str], open_tier: Callable[[str], TransformerEncoder]
) -> dict[str, TransformerEncoder]:
    """Open the tiers that run the export alike, the first in any case."""
    encoders = {tiers[0]: open_tier(tiers[0])}
    for name in tiers[1:]:
        try:
            encoder = open_tier(name)
            ids = _row(encoders)
            x, want = (own.embed([ids])[0].astype(np.float64) for own in (encoder, encoders[tiers[0]]))
        except IprError as error:
            LOGGER.warning("%s: auto leaves out %s: %s", export.name, name, error)
            continue
        cosine = float(x @ want / (np.linalg.norm(x) * np.linalg.norm(want)))
        if cosine >= LEAST_COSINE:  # not so for NaN
            encoders[name] = encoder
        else:
            LOGGER.warning("%s: auto leaves out %s: cosine %.6f to %s", export.name, name, cosine, tiers[0])
    return encoders


def _row(encoders: Encoders) -> NDArray[np.int64]:
    """Return the ids that are timed, of prose; they are those of every tier, since all have one tokenizer."""
    return next(iter(encoders.values())).ids([PROSE])[0][:TOKENS]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # installed under another name, onnxruntime-gpu say
        return None


def _processor() -> str:
    """Return what tells kinds of processor apart: the first one's name and instruction sets."""
    told = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if line.startswith(told))
