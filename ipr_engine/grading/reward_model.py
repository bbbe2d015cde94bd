"""A `RewardModel` scores conversations by a sequence classifier with one label, read by transformers; its rewards are no qualities yet."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine._files import file_sha256
from ipr_engine.errors import BackendUnavailableError, InvalidInputError, OutOfDeviceMemoryError
from ipr_engine.grading.grade import AnswerToGrade, Grade, UngradableError, grader_identity
from ipr_engine.grading.grader_specs import RewardSpec
from ipr_engine.grading.plain_messages import plain_messages

Progress = Callable[[int, int], None]

_HASHED = {".safetensors", ".json", ".jinja", ".txt", ".model"}
CUT = "its beginning was left out: max_tokens"


class RewardModel:
    """A `RewardModel` gives each answer the reward of the whole conversation, as `raw`; there is no score before a calibration.

    The conversation is the request's messages and the answer, in the chat template of the model's own tokenizer. Rows are sorted by
    length and padded at their end, so that a row's reward does not depend on the rows beside it but by rounding.
    """

    def __init__(self, spec: RewardSpec, *, progress: Progress | None = None) -> None:
        """Load the model onto its device.

        Args:
            progress: is told answers done and answers in all, batch by batch.
        Raises:
            InvalidInputError: the model is no classifier with one label, lacks weights or a chat template, or needs code of its own.
            BackendUnavailableError: torch, transformers, the device, the folder or the hub is not there.
        """
        self._torch = torch = need("torch", "a reward model", "train")
        transformers = need("transformers", "a reward model", "train")
        self._spec, self._progress = spec, progress
        device = _device(torch, spec.device)
        where: dict[str, Any] = {} if os.path.isdir(spec.model) else {"revision": spec.revision}
        config = _loaded(
            spec, lambda: transformers.AutoConfig.from_pretrained(spec.model, trust_remote_code=False, **where)
        )
        if config.num_labels != 1:
            raise InvalidInputError(
                f"model: expected a classifier with one label, got {config.num_labels}; name a reward model"
            )
        self._tokenizer = _loaded(
            spec, lambda: transformers.AutoTokenizer.from_pretrained(spec.model, trust_remote_code=False, **where)
        )
        if not self._tokenizer.chat_template:
            raise InvalidInputError(
                "model: expected a tokenizer with a chat template, got one without; name a reward model"
            )
        model, told = _loaded(
            spec,
            lambda: transformers.AutoModelForSequenceClassification.from_pretrained(
                spec.model,
                config=config,
                dtype=getattr(torch, spec.dtype),
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **where,
            ),
        )
        if told["missing_keys"]:
            raise InvalidInputError(
                f"model: {len(told['missing_keys'])} weights are missing, such as that of its score; name a reward model"
            )
        self._model = model.to(device).eval()
        self._device, self._pad = device, config.get_text_config().pad_token_id
        weights = _folder_sha256(Path(spec.model)) if not where else {"commit": getattr(config, "_commit_hash", None)}
        self.identity = grader_identity(spec, weights=weights, transformers=metadata.version("transformers"))

    def grade(self, answers: Sequence[AnswerToGrade]) -> list[Grade]:
        """Return one grade an answer, in order."""
        grades = [Grade(None)] * len(answers)
        for rows, batch in self.grade_batches(answers):
            for i, grade in zip(rows, batch, strict=True):
                grades[i] = grade
        return grades

    def grade_batches(self, answers: Sequence[AnswerToGrade]) -> Iterator[tuple[list[int], list[Grade]]]:
        """Yield indices of answers and their grades, batch by batch, longest first, so that a caller can keep what is done.

        Raises:
            OutOfDeviceMemoryError: a batch does not fit.
        """
        refused: dict[int, Grade] = {}
        tokens: dict[int, list[int]] = {}
        for i, one in enumerate(answers):
            try:
                tokens[i] = self._tokens(one)
            except UngradableError as error:
                refused[i] = Grade(None, reason=str(error))
        done = len(refused)
        if refused:
            yield list(refused), list(refused.values())
        for rows in batches({i: min(len(ids), self._spec.max_tokens) for i, ids in tokens.items()}, self._most_of):
            cut = [tokens[i][-self._spec.max_tokens :] for i in rows]
            rewards = self._rewards(cut)
            done += len(rows)
            if self._progress is not None:
                self._progress(done, len(answers))
            yield rows, [_graded(r, len(tokens[i]) > self._spec.max_tokens) for i, r in zip(rows, rewards, strict=True)]

    def _most_of(self, length: int) -> int:
        # Without a token to pad with, the model takes one row at a time.
        return max(1, self._spec.batch_tokens // length) if self._pad is not None else 1

    def _tokens(self, one: AnswerToGrade) -> list[int]:
        jinja = need("jinja2", "a chat template", "train")
        conversation = [*plain_messages(one.body), {"role": "assistant", "content": one.answer}]
        try:
            text = self._tokenizer.apply_chat_template(conversation, tokenize=False)
        except (jinja.TemplateError, TypeError, KeyError, ValueError):
            raise UngradableError("the chat template of the model does not take this conversation") from None
        begin = self._tokenizer.bos_token
        # The tokenizer adds it once more.
        text = text.removeprefix(begin) if begin else text
        try:
            return list(self._tokenizer(text)["input_ids"])
        except (UnicodeEncodeError, TypeError):
            raise UngradableError("a text holds a lone surrogate") from None

    def _rewards(self, rows: list[list[int]]) -> list[float]:
        torch, width = self._torch, max(map(len, rows))
        pad = self._pad if self._pad is not None else 0
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self._device)  # (rows, width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits  # (rows, 1)
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemoryError(
                f"batch_tokens: {len(rows)} rows of {width} tokens do not fit on {self._spec.device}; give less than "
                f"{self._spec.batch_tokens}"
            ) from error
        return [float(one) for one in logits[:, 0].float().tolist()]


def batches(lengths: Mapping[int, int], most_of: Callable[[int], int]) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, longest first; most_of: how many rows of one length a batch may hold."""
    order = sorted(lengths, key=lambda i: (-lengths[i], i))
    at = 0
    while at < len(order):
        count = most_of(max(1, lengths[order[at]]))
        yield order[at : at + count]
        at += count


def _graded(reward: float, cut: bool) -> Grade:
    if not math.isfinite(reward):
        return Grade(None, reason="the reward is not finite")
    return Grade(None, raw=reward, reason=CUT if cut else None)


def _device(torch: Any, name: str) -> Any:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise BackendUnavailableError(f"device: {name!r} is not to be had here; name another, such as cpu") from None
    return device


def _loaded(spec: RewardSpec, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except OSError as error:
        kind = (
            "is no folder with such a model"
            if os.path.isdir(spec.model)
            else "is no folder, and was not found on the hub"
        )
        raise BackendUnavailableError(
            f"model: {spec.model} {kind}, nor in its cache here; where no hub is reached, copy the model's folder (config.json, "
            f"*.safetensors, the tokenizer) here and name it ({type(error).__name__})"
        ) from error
    except (ValueError, KeyError, ImportError) as error:
        raise InvalidInputError(
            f"model: {spec.model} cannot be read by this transformers without code of its own, which is never run: {type(error).__name__}"
        ) from error


def _folder_sha256(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.suffix in _HASHED and path.is_file())
    return {path.name: file_sha256(path)[0] for path in files}
