"""This file holds the arguments of `train`: the outcomes and the encoder, how heads are fitted, and where the bundle goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipr_engine._validate import random_seed
from ipr_engine.audit.owner_key import Key
from ipr_engine.bundle import Bundle, ConcatenatedSource, EncoderSource, SurfaceSource, TaskSource, TransformerSource
from ipr_engine.bundle.checks import require_day, require_text
from ipr_engine.bundle.conversation import ALL, CONVERSATIONS, RECENCY, Conversation
from ipr_engine.bundle.encoder_source import AnySource
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON
from ipr_engine.bundle.write import require_root
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.heeded import warn_of_table
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import is_export, read_export
from ipr_engine.encoders.registry import is_model2vec, open_export, refuse_folder_options
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.task_columns import TaskColumns
from ipr_engine.encoders.transformer_files import read_transformer_folder
from ipr_engine.errors import BundleNotFoundError, InvalidInputError
from ipr_engine.training.estimators.by_name import CLOSED_FORM, ESTIMATORS, check_options
from ipr_engine.training.fitted_heads import MOST_COPIES

DEFAULT_ENCODER = "default"
TASKS = "tasks"  # id of the entry of tasks
SURFACE = "surface"  # the word for surface features, where a folder may stand
TABLE_MAX_TOKENS = 512
FOLDER_MAX_TOKENS = 256  # of a transformers folder; an export has its own

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class TrainingEncoder:
    """A `TrainingEncoder` is an open encoder, the id that heads name it by, and the entries that write it into a bundle, parts first.

    surface_dim: how many of its last columns are surface features. conversation: what heads on it are given of several turns.
    """

    encoder: Encoder
    id: str
    sources: tuple[AnySource, ...]
    surface_dim: int = 0
    conversation: Conversation = ALL

    @classmethod
    def side_by_side(cls, opened: Sequence[tuple[Encoder, AnySource]]) -> TrainingEncoder:
        """Return encoders with their entries as one; a single one stays itself."""
        sources = tuple(source for _, source in opened)
        if len(opened) == 1:
            return cls(opened[0][0], sources[0].id, sources)
        # Parts first: the entry of the whole refers to theirs by id.
        both = ConcatenatedSource(id="side_by_side", parts=tuple(source.id for source in sources))
        joined = ConcatenatedEncoder([encoder for encoder, _ in opened])
        return cls(joined, both.id, (*sources, both), joined.surface_dim)

    def with_tasks(self, names: Sequence[str]) -> TrainingEncoder:
        """Return the same with a column for each of these tasks, behind the embedding."""
        parts = list(self.encoder.encoders) if isinstance(self.encoder, ConcatenatedEncoder) else [self.encoder]
        opened = list(zip(parts, self.sources, strict=False))  # the entry of the whole is last
        at = len(opened) - bool(self.surface_dim)
        tasks = TaskColumns(names)
        made = self.side_by_side([*opened[:at], (tasks, TaskSource(id=TASKS, names=tasks.names)), *opened[at:]])
        return replace(made, conversation=self.conversation)

    def without_surface(self) -> TrainingEncoder:
        """Return the same without surface features."""
        if not isinstance(self.encoder, ConcatenatedEncoder) or not self.surface_dim:
            return self
        made = self.side_by_side(list(zip(self.encoder.encoders[:-1], self.sources, strict=False)))
        return replace(made, conversation=self.conversation)


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """An `EncoderChoice` names the encoders that heads are fitted on; `open` opens them.

    Attributes:
        folders: a model2vec folder, an export or a transformers folder; or several, side by side in this order. "default", and
            None, is the embedded default bundle's table. "surface", beside one of these, is surface features with the English
            lexicon, which come last wherever it stands; `train` adds them to None where an estimator may read them.
        options: who runs a transformer, and where.
        max_tokens: of the transformers; None is an export's own, and 256 of a transformers folder.
        pooling: "mean", "cls" or "last" for a transformers folder that does not tell it.
        dtype: "int8", "bfloat16" or "bfloat16-mixed" to fit on an export's embeddings in that arithmetic; the bundle then serves
            them.
        head_tokens: how many tokens of a prompt's beginning have a mean of their own, 0 for none: of the last embedding named,
            which must be a table.
        fold_width: whether tables read full width forms as the ASCII that they stand for; None: the embedded one as its bundle says,
            which is so, others not.
        contained: whether the bundle holds a transformer's files, which needs an export; else it references the model by its
            identity, and whoever loads the bundle says where it is.
        conversation: what of several turns of a user is encoded: "all" as one text, "last", or "recency", each alone and weighing
            half of the next. None: "recency" of tables, "all" where one encoder is a transformer.
    """

    folders: Folder | Sequence[Folder] | None = None
    options: LoadOptions = field(default_factory=LoadOptions)
    max_tokens: int | None = None
    pooling: str | None = None
    dtype: str | None = None
    head_tokens: int = 0
    fold_width: bool | None = None
    contained: bool = True
    conversation: Conversation | None = None

    def with_surface(self) -> EncoderChoice:
        """Return the choice with surface features beside the default table; itself where encoders are named."""
        return self if self.folders is not None else replace(self, folders=(DEFAULT_ENCODER, SURFACE))

    def open(self) -> TrainingEncoder:
        """Open the encoders; several are one, side by side.

        Raises:
            InvalidInputError: two parts are one encoder, "surface" stands alone, a transformers folder is to be contained, a
                transformer is to have a head view or to weigh turns, a head view has more tokens than its table reads of a prompt, or
                width is to be folded where there is no table.
            BackendUnavailableError: what runs a transformer is missing.
        """
        folders = DEFAULT_ENCODER if self.folders is None else self.folders
        listed: list[Folder] = [folders] if isinstance(folders, (str, os.PathLike)) else [*folders]
        if not listed:
            raise InvalidInputError("encoder: expected at least one folder, got none")
        listed.sort(key=lambda folder: folder == SURFACE)
        if listed[0] == SURFACE:
            raise InvalidInputError(
                "encoder: surface features stand beside an encoder, which counts tokens; name one too, 'default' for example"
            )
        # A folder that is not there is told as such, when it is opened.
        if self.fold_width is not None and not any(
            not Path(f).exists() or _is_table(f) for f in listed if f != SURFACE
        ):
            raise InvalidInputError(
                "fold_width: of a table, and every encoder here is a transformer; leave it out, or name a table"
            )
        opened: list[tuple[Encoder, AnySource]] = []
        for place, folder in enumerate(listed):
            last = all(other == SURFACE for other in listed[place + 1 :])
            taken = {source.id for _, source in opened}
            head_tokens = self.head_tokens if last else 0
            opened.append(self._open_one(folder, taken, alone=len(listed) == 1, head_tokens=head_tokens))
        of_transformers = (("max_tokens", self.max_tokens), ("pooling", self.pooling), ("dtype", self.dtype))
        given = [name for name, value in of_transformers if value is not None]
        # After opening: only the encoders themselves tell whether one of them is a transformer.
        tables = all(isinstance(source, (EncoderSource, SurfaceSource)) for _, source in opened)
        if (given or not self.contained) and tables:
            raise InvalidInputError(
                f"{', '.join(given) or 'contained'}: of a transformer, and every encoder here is a table; leave it out, or name a "
                "transformer"
            )
        # No error: a script may fit on tables and on transformers with the same options.
        if self.options != LoadOptions() and tables:
            warn_of_table(self.options)
        identities = [encoder.identity for encoder, _ in opened]
        if len(set(identities)) < len(identities):
            names = ", ".join(Path(folder).name for folder in listed)
            raise InvalidInputError(f"encoder: expected different encoders side by side, got one twice among {names}")
        return replace(TrainingEncoder.side_by_side(opened), conversation=self._conversation(tables))

    def _conversation(self, tables: bool) -> Conversation:
        """Return what of several turns is encoded. tables: whether every encoder is one, surface features aside."""
        said = self.conversation
        if said is None:
            return RECENCY if tables else ALL
        if said not in CONVERSATIONS:
            raise InvalidInputError(f"conversation: expected one of {', '.join(CONVERSATIONS)}, got {said!r}")
        if said == RECENCY and not tables:
            raise InvalidInputError(
                "conversation: recency is of tables alone, and one encoder here is a transformer; choose last or all, or leave it out"
            )
        return said

    def _open_one(self, folder: Folder, ids: set[str], *, alone: bool, head_tokens: int) -> tuple[Encoder, AnySource]:
        """Open one encoder, and make its entry under an id that is not among `ids`. alone: no other one could heed an option."""
        if folder == SURFACE:
            return SurfaceEncoder.load(), SurfaceSource(id=SURFACE, lexicon=DEFAULT_LEXICON)
        path, max_tokens, dtype = Path(folder), self.max_tokens, self.dtype
        if folder != DEFAULT_ENCODER and not path.exists():
            raise BundleNotFoundError(
                f"encoder: {folder}: no such folder; expected one, or the word {DEFAULT_ENCODER!r} or {SURFACE!r}"
            )
        if head_tokens and not _is_table(folder):
            raise InvalidInputError(
                f"head_tokens: of a table, and {path.name} is a transformer; leave it out, or name a table behind it"
            )
        if is_export(path):
            export = read_export(path)
            encoder = open_export(path, self.options, max_tokens=max_tokens, dtype=dtype)
            id = _free("transformer", ids)
            return encoder, export.bundle_source(id, max_tokens=max_tokens, dtype=dtype, contained=self.contained)
        if dtype is not None and path.exists() and not is_model2vec(path):
            raise InvalidInputError(
                f"dtype: {dtype!r} is for exports, and {path.name} is a transformers folder; export it first"
            )
        if _is_table(folder):
            files = replace(encoder_files(folder), id=_free("static", ids), head_tokens=head_tokens)
            if type(head_tokens) is int and head_tokens > files.max_tokens:
                raise InvalidInputError(
                    f"head_tokens: expected at most {files.max_tokens}, all that {path.name} reads of a prompt, got {head_tokens}"
                )
            if self.fold_width is not None:
                files = replace(files, fold_width=self.fold_width)
            table = StaticEncoder.load(
                files.table,
                files.tokenizer,
                files.config,
                max_tokens=files.max_tokens,
                head_tokens=files.head_tokens,
                fold_width=files.fold_width,
                isa=self.options.isa,
            )
            return table, files
        if self.contained:
            raise InvalidInputError(
                f"encoder: {path.name} is a transformers folder, and a bundle can contain an export alone; export it first "
                "(ipr export-encoder), or let the bundle reference it (--reference)"
            )
        refuse_folder_options(path, self.options if alone else replace(self.options, threads=None))
        from ipr_engine.encoders.torch import TorchEncoder  # needs torch: only a transformers folder does

        limit = FOLDER_MAX_TOKENS if max_tokens is None else max_tokens
        model = read_transformer_folder(path, pooling=self.pooling)
        made = TorchEncoder.from_folder(path, pooling=self.pooling, max_tokens=limit, device=self.options.device)
        return made, TransformerSource(
            id=_free("transformer", ids),
            dim=made.dim,
            max_tokens=limit,
            pooling=model.pooling,
            normalize=model.normalize,
            dtype=None,
            identity=made.identity,
            name=path.name,
            revision=None,
        )


def encoder_files(encoder: Folder | None) -> EncoderSource:
    """Return the entry of a model2vec folder's table, or of the embedded default bundle's."""
    if encoder is not None and encoder != DEFAULT_ENCODER:
        return EncoderSource.in_folder(encoder, id="static", max_tokens=TABLE_MAX_TOKENS)
    spec = Bundle.load(DEFAULT_BUNDLE).encoders[0]
    return EncoderSource(
        id="static",
        table=spec.files["table"],
        tokenizer=spec.files["tokenizer"],
        config=spec.files["config"],
        max_tokens=spec.max_tokens,
        fold_width=spec.fold_width,
    )


def _is_table(folder: Folder) -> bool:
    return folder == DEFAULT_ENCODER or (not is_export(folder) and is_model2vec(Path(folder)))


def _free(id: str, taken: set[str]) -> str:
    """Return the id, with a number where it is taken."""
    return next(name for name in (id, *(f"{id}_{n}" for n in range(2, 99))) if name not in taken)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A `TrainingData` holds the prompts that heads are fitted on, and the encoder that embeds them.

    Attributes:
        outcomes: folder of outcome data (docs/outcome-data.md) with output tokens; or several: then the heads speak of the
            first, and every other source's level is taken out by an intercept.
        candidates: JSON: {"date", "candidates": [{name, family, provider, input_usd_per_1m, output_usd_per_1m, and
            optionally source (the name in the outcomes, or {source: name}), context_window, features, token_ratio (else
            measured, see fitted_parts.with_tokenizers), tokenizer, latency_ms, ...}]}.
        split: the split to fit on; None takes every prompt.
        intercepts: with several sources, whether each but the first gets an intercept that the heads leave out: yes where the
            same prompts would score differently there (another checker, another sampling); no where the sources are parts
            of one traffic.
        encoder: one or several; by default the embedded default bundle's table.
        task_column: column of the prompts' table that says what each is for, one of `data.outcomes.TASK_COLUMNS`: heads tell its
            tasks apart, and callers may name one. None: no tasks.
        cache: folder that keeps a transformer's embeddings, so that the next fit on these prompts does not embed them again.
    """

    outcomes: Path | str | Sequence[Path | str]
    candidates: Path | str
    split: str | None = "train"
    intercepts: bool = True
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    task_column: str | None = None
    cache: Folder | None = None

    @property
    def folders(self) -> list[Path | str]:
        """The folders of outcomes, the first one home."""
        return [self.outcomes] if isinstance(self.outcomes, (str, Path)) else list(self.outcomes)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """`FitOptions` are the settings of a fit.

    Attributes:
        estimator: one of by_name.ESTIMATORS, or "auto": the best closed form by nested cross-validation on these prompts.
        options: of the estimator (`by_name.fit_scores`).
        seed: of folds and centroids.
        run: folder that keeps the finished parts of a network's fit; the same call goes on from there after an interruption.
        allow_constant: deliver heads that tell prompts apart no better than a constant does (measures/prediction.py), marked as
            such in the bundle, instead of refusing.
        standing: say how far the router is (standing.py), for the bundle's provenance too: 12 more fits of a closed form. Networks
            are left out: each would take as long as the first.
        augment: copies of each prompt that heads are fitted on as well, written otherwise (`data.prompt_edits.written_otherwise`), 0 to 8.
    Raises:
        InvalidInputError: an unknown estimator, options that it does not have, a run folder where no network is fitted, or a seed or a
            number of copies out of range.
    """

    estimator: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    run: Path | str | None = None
    allow_constant: bool = False
    standing: bool = False
    augment: int = 0

    def __post_init__(self) -> None:
        if self.estimator != "auto" and self.estimator not in ESTIMATORS:
            raise InvalidInputError(
                f"estimator: expected 'auto' or one of {', '.join(ESTIMATORS)}, got {self.estimator!r}"
            )
        if self.options and self.estimator == "auto":
            raise InvalidInputError(f"options: 'auto' has none, got {', '.join(self.options)}; name the estimator")
        if self.estimator != "auto":
            check_options(self.estimator, self.options)
        if self.run is not None and self.estimator in ("auto", *CLOSED_FORM):
            raise InvalidInputError(
                f"run: keeps the parts of a network's fit, and {self.estimator!r} fits none; leave it out (--run-folder), or name a "
                f"network ({', '.join(name for name in ESTIMATORS if name not in CLOSED_FORM)})"
            )
        random_seed("seed", self.seed)
        if type(self.augment) is not int or not 0 <= self.augment <= MOST_COPIES:
            raise InvalidInputError(f"augment: expected an int from 0 to {MOST_COPIES}, got {self.augment!r}")


@dataclass(frozen=True, kw_only=True)
class BundleTarget:
    """A `BundleTarget` is the place and the name of a new bundle.

    Attributes:
        root: bundle root. activate: the new bundle becomes its CURRENT.
        name, created: of the bundle; the day as YYYY-MM-DD.
        key: the owner's, under which the bundle keeps hashes of its prompts; None takes ROOT/owner.key, and makes it where it is
            not there. It belongs to no bundle: keep it out of what you hand on.
    Raises:
        InvalidInputError: a blank name, no day, or a root that cannot be one.
    """

    root: Path | str
    name: str
    created: str
    key: Key | None = None
    activate: bool = True

    def __post_init__(self) -> None:
        require_text("name", self.name)
        require_day("created", self.created)
        require_root("out", self.root)
