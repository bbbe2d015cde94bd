"""An encoder's failure is raised as an EncoderFailedError; a lost device's own error stays where the CPU can take over."""

from __future__ import annotations

from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import DeviceLostError, EncoderFailedError, InvalidInputError
from ipr_engine.loaded.planned_bundle import EmbedRows, Rows


def encoder_failed(error: BaseException, what: str) -> EncoderFailedError:
    """Return the error for a failure of the encoder on `what`; `error` may be a panic of Rust's, which is no Exception."""
    failed = EncoderFailedError(f"the encoder failed on {what}: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


def raise_if_lost(error: BaseException, cpu_planned: bool) -> None:
    """Raise the error of a lost device where the CPU is planned to take over."""
    if isinstance(error, DeviceLostError) and cpu_planned:
        raise error


def guarded(embed: EmbedRows, cpu_planned: bool) -> EmbedRows:
    """Return the second encoder's `embed`, wrapped: an error in it becomes an EncoderFailedError, unless a row is at fault."""

    def embed_guarded(rows: Rows) -> Encoded:
        try:
            return embed(rows)
        except InvalidInputError:
            raise
        except BaseException as error:
            raise_if_lost(error, cpu_planned)
            raise encoder_failed(error, f"a batch of {len(rows)}") from error

    return embed_guarded
