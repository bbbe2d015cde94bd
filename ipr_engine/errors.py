"""Every error of ipr_engine, all below IprError; each names the argument, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class IprError(Exception):
    """Base of every error this library raises on purpose."""


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
        reasons: one of "nonfinite_quality", "nonfinite_cost", "none_allowed" per failed row.
    """

    def __init__(self, rows: Sequence[int], reasons: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self.reasons = tuple(reasons)
        shown = ", ".join(f"row {row}: {reason}" for row, reason in list(zip(self.rows, self.reasons, strict=True))[:5])
        more = f" and {len(self.rows) - 5} more" if len(self.rows) > 5 else ""
        super().__init__(
            f"{len(self.rows)} row(s) could not be decided ({shown}{more}); "
            "pass on_error='status' to get every row with its status and the reason why each candidate was excluded"
        )

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


class EncoderMismatchError(BundleError):
    """A head, or the support, belongs to another encoder than the one at hand, or its files changed."""


class EngineMismatchError(IprError):
    """A compiled engine was made for another model, TensorRT, GPU or set of shapes, is damaged, or does not give the model's embeddings."""


class OutOfDeviceMemoryError(IprError, MemoryError):
    """The GPU's memory does not hold what a plan needs; the message names the largest shape."""


class RecordError(IprError):
    """A decision record is damaged, of an unknown version, or cannot be written."""


class CubinError(IprError):
    """A compiled GPU kernel, or its metadata, is missing, damaged or of an unknown version."""
