"""A reward model: each row's reward whatever its batch, what is cut and refused, and errors of models that are none."""

from __future__ import annotations

import pytest

from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.grading.grade import AnswerToGrade
from ipr_engine.grading.grader_specs import RewardSpec
from tests.support import skips
from tests.support.reward_models import WORDS, make_reward_model
from tests.support.seeds import seeded

torch = pytest.importorskip("torch", reason=skips.TORCH)
transformers = pytest.importorskip("transformers", reason=skips.TORCH)

from ipr_engine.grading.reward_model import CUT, RewardModel  # noqa: E402


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def folder(request, tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("reward") / request.param, kind=request.param)


def answer(text: str, question: str = "what is the sum ?") -> AnswerToGrade:
    return AnswerToGrade(prompt=question, body={"messages": [{"role": "user", "content": question}]}, answer=text)


def answers(count: int) -> list[AnswerToGrade]:
    rng = seeded("rewards", count)
    return [answer(" ".join(rng.choice(WORDS, int(rng.integers(1, 60))))) for _ in range(count)]


def by_hand(folder, one: AnswerToGrade, dtype=torch.float64) -> float:
    """The reward of one conversation, alone, in float64, as the model's own page computes it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    conversation = [*one.body["messages"], {"role": "assistant", "content": one.answer}]
    ids = tokenizer(tokenizer.apply_chat_template(conversation, tokenize=False), return_tensors="pt")
    with torch.inference_mode():
        return float(model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits[0, 0])


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_a_reward_is_that_of_the_row_alone_whatever_its_batch(folder, batch_tokens):
    asked = answers(23)
    got = [g.raw for g in RewardModel(RewardSpec(model=str(folder), batch_tokens=batch_tokens)).grade(asked)]
    alone = [by_hand(folder, one) for one in asked]
    plain = max(abs(by_hand(folder, one, torch.float32) - exact) for one, exact in zip(asked, alone, strict=True))
    assert max(abs(g - a) for g, a in zip(got, alone, strict=True)) <= 2 * plain + 1e-6
    assert max(alone) - min(alone) > 0.1  # rewards that could be told apart


def test_a_reward_is_no_quality_yet(folder):
    grade = RewardModel(RewardSpec(model=str(folder))).grade([answer("five")])[0]
    assert grade.score is None
    assert grade.raw is not None


def test_rows_of_a_model_that_cannot_pad_are_read_one_by_one(tmp_path):
    folder = make_reward_model(tmp_path / "m", pad=False)
    asked = answers(5)
    for grade, one in zip(RewardModel(RewardSpec(model=str(folder))).grade(asked), asked, strict=True):
        assert grade.raw == pytest.approx(by_hand(folder, one), abs=1e-5)


def test_of_a_long_conversation_the_beginning_is_left_out_and_told(folder):
    model = RewardModel(RewardSpec(model=str(folder), max_tokens=8))
    long, longer = model.grade([answer("a b c d e five"), answer("a b c d e five", "hello world a b c " * 20)])
    assert long.reason == longer.reason == CUT
    assert long.raw == pytest.approx(longer.raw, abs=1e-5)  # their last 8 tokens are the same


def test_what_a_chat_template_does_not_take_is_a_reason(folder):
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "what is the"}, {"type": "text", "text": " sum ?"}]}
    asked = [AnswerToGrade(prompt="", body={"messages": [m]}, answer="five") for m in (image, parts)]
    refused, taken = RewardModel(RewardSpec(model=str(folder))).grade([*asked])
    assert (refused.raw, refused.reason) == (None, "a message has parts that are no text")
    assert taken.raw == pytest.approx(by_hand(folder, answer("five")), abs=1e-5)


def test_batches_are_told_and_given_as_they_are_done(folder):
    told = []
    model = RewardModel(RewardSpec(model=str(folder), batch_tokens=100), progress=lambda *done: told.append(done))
    given = [rows for rows, _ in model.grade_batches(answers(11))]
    assert sorted(i for rows in given for i in rows) == list(range(11))
    assert told[-1] == (11, 11)
    assert len(told) == len(given) > 1


def test_the_identity_is_that_of_the_weights_and_options(folder, tmp_path):
    first = RewardModel(RewardSpec(model=str(folder))).identity
    assert RewardModel(RewardSpec(model=str(folder))).identity == first
    assert RewardModel(RewardSpec(model=str(folder), max_tokens=99)).identity != first
    one, other = (make_reward_model(tmp_path / "m", seed=seed) for seed in (1, 2))
    assert one == other  # the same folder, written twice
    assert RewardModel(RewardSpec(model=str(other))).identity != first


def test_a_model_of_more_labels_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="model: expected a classifier with one label, got 3"):
        RewardModel(RewardSpec(model=str(make_reward_model(tmp_path / "m", labels=3))))


def test_a_model_without_a_score_is_refused(tmp_path):
    folder = make_reward_model(tmp_path / "m")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "score" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidInputError, match="1 weights are missing"):
        RewardModel(RewardSpec(model=str(folder)))


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path):
    folder = make_reward_model(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidInputError, match="a chat template"):
        RewardModel(RewardSpec(model=str(folder)))


@pytest.mark.parametrize("model", ["no/such-model", "empty"])
def test_a_model_that_is_not_there_says_what_to_do(tmp_path, monkeypatch, model):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    name = str(tmp_path / "empty") if model == "empty" else model
    with pytest.raises((BackendUnavailableError, InvalidInputError), match=r"^model: "):
        RewardModel(RewardSpec(model=name))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(BackendUnavailableError, match="device: 'cuda:99' is not to be had here"):
        RewardModel(RewardSpec(model="any", device="cuda:99"))
