"""Every error of ipr_engine is an IprError; each names the argument, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class IprError(Exception):
    """`IprError` is the base of every error that this library raises on purpose."""


class InvalidInputError(IprError, ValueError):
    """An argument has the wrong type, shape, range or name."""


class BackendUnavailableError(IprError, RuntimeError):
    """A back end (instruction set, device, optional package) was asked for and is missing here."""


class DeviceLostError(BackendUnavailableError):
    """A device failed while it was in use: what was loaded on it does no further work."""


class RowError(IprError, RuntimeError):
    """Some rows of a batch could not be decided.

    Attributes:
        rows: indices of the failed rows.
        reasons: one of "nonfinite_quality", "nonfinite_cost", "none_allowed" per failed row; "invalid_input" where `decide` was
            given embeddings with a bad prompt's row in them.
    """

    def __init__(self, rows: Sequence[int], reasons: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self.reasons = tuple(reasons)
        # The message names five rows; `rows` holds all of them.
        shown = ", ".join(f"row {row}: {reason}" for row, reason in list(zip(self.rows, self.reasons, strict=True))[:5])
        more = f" and {len(self.rows) - 5} more" if len(self.rows) > 5 else ""
        super().__init__(
            f"{len(self.rows)} row(s) could not be decided ({shown}{more}); "
            "route_many(..., on_error='status') gives every row with its status and the reason why each candidate was excluded"
        )

    # Exceptions are pickled by their message alone: what another process gets is made of the arguments instead.
    def __reduce__(self) -> tuple[type[RowError], tuple[tuple[int, ...], tuple[str, ...]]]:
        return type(self), (self.rows, self.reasons)


class BundleError(IprError):
    """A bundle is missing, damaged, inconsistent or of an unknown version."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """The folder, CURRENT, bundle.json or a file it names does not exist."""


class BundleFormatError(BundleError):
    """A file is truncated or unreadable, or a field is missing, unknown or of the wrong kind."""


class BundleVersionError(BundleError):
    """bundle.json has a schema_version this library does not know."""


class BundleHashError(BundleError):
    """A file's bytes are not those whose sha256 bundle.json (or the folder's name) states."""


class BundlePathError(BundleError):
    """A path in bundle.json points outside the bundle's folder."""


class BundleShapeError(BundleError):
    """A tensor's shape or dtype does not fit the candidates, the encoder or the other tensors."""


class BundleValueError(BundleError):
    """A weight, price or constant is NaN, infinite or out of range."""


class PathMismatchError(BundleError):
    """Path rows are not predictions of the heads that decide."""


class EncoderMismatchError(BundleError):
    """A head, or the support, belongs to another encoder than the one at hand, or its files changed."""


class EngineMismatchError(IprError):
    """A compiled engine was made for another model, TensorRT, GPU or set of shapes, is damaged, or does not give the model's embeddings."""


class OutOfDeviceMemoryError(IprError, MemoryError):
    """The GPU's memory does not hold what a plan, or one call, needs; the message names the shape."""


class NotServingError(IprError, RuntimeError):
    """An async or batching engine was asked before it was started, after it was closed, or in a forked child."""


class OverloadError(IprError, RuntimeError):
    """The queue is full, or too slow: this request was refused at once, the ones in it go on.

    Attributes:
        queued, limit: requests that wait, and how many may.
        predicted_us: the wait that was foreseen where it is over max_wait_us; else None.
    """

    def __init__(self, queued: int, limit: int, predicted_us: float | None = None) -> None:
        self.queued = queued
        self.limit = limit
        self.predicted_us = predicted_us
        why = (
            f"at most {limit} may (max_queue)"
            if predicted_us is None
            else f"one more would wait some {predicted_us:.0f} us, longer than max_wait_us allows"
        )
        super().__init__(f"{queued} requests wait, and {why}; try again later, send less, or use more processes")

    def __reduce__(self) -> tuple[type[OverloadError], tuple[int, int, float | None]]:
        return type(self), (self.queued, self.limit, self.predicted_us)


class DeadlineError(IprError, TimeoutError):
    """A request's budget_us was over before it was decided, and no fallback could answer in its place.

    Attributes:
        budget_us: what the request was given. waited_us: how long it had waited.
    """

    def __init__(self, budget_us: float, waited_us: float, reason: str) -> None:
        self.budget_us = budget_us
        self.waited_us = waited_us
        self.reason = reason
        super().__init__(f"budget_us: {budget_us:g} given, {waited_us:.0f} us waited without a decision; {reason}")

    def __reduce__(self) -> tuple[type[DeadlineError], tuple[float, float, str]]:
        return type(self), (self.budget_us, self.waited_us, self.reason)


class EncoderFailedError(IprError, RuntimeError):
    """The encoder failed on the batch a request was in; the reason is its __cause__. Other batches are not concerned."""


class RecordError(IprError):
    """A decision record is damaged, of an unknown version, or cannot be written."""


class KeyMismatchError(IprError):
    """A record or a bundle was sealed or hashed under another owner's key than the one given, or under one that was not given."""


class CubinError(IprError):
    """A compiled GPU kernel, or its metadata, is missing, damaged or of an unknown version."""
