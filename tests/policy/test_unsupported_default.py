"""What the default bundle does with prompts unlike its fitting data: the figures of docs/usage.md."""

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.data import load_outcomes
from ipr_engine.data.outcome_files import find_sources
from tests.support import skips

LEAST = 0.02  # the min_support that docs/usage.md names
GREETINGS = [
    "hello", "hi", "Hi there!", "hey", "good morning", "Hello, how are you?", "thanks!", "ok", "bye", "What's up?",
]  # fmt: skip
SMALL_TALK = [
    "How was your day?",
    "Tell me a joke",
    "Who are you?",
    "What can you do?",
    "I'm bored",
    "Do you like music?",
    "What is the weather like today?",
    "Can you help me?",
]
PROSE = [
    "Write a short poem about the sea.",
    "Summarise the plot of Hamlet in two sentences.",
    "Draft a polite email declining a meeting.",
    "Translate 'good night' into French.",
    "Explain quicksort.",
    "Name three rivers in France.",
    "Write a product description for a wooden chair.",
    "What causes inflation?",
]
LANGUAGES = [
    "Bonjour, comment ça va ?",
    "Wie ist das Wetter heute?",
    "Schreibe ein Gedicht über den Herbst.",
    "¿Cuál es la capital de Perú?",
    "Привет, как дела?",
    "你好",
    "今日はいい天気ですね",
    "Расскажи о войне и мире",
]


@pytest.fixture(scope="module")
def engine(default_engine):
    return default_engine


def test_it_decides_every_prompt_plainly_unless_told_otherwise(engine):
    rows = engine.route_many([*GREETINGS, *PROSE], tau=0.2)
    assert not {row.cause for row in rows} & {"unsupported"}
    assert engine.policy(tau=0.2).unsupported.min_support == 0


@pytest.mark.parametrize(
    ("prompts", "sent"),
    [(GREETINGS, 10), (SMALL_TALK, 5), (PROSE, 8), (LANGUAGES, 8)],
    ids=["hi", "talk", "prose", "lang"],
)
def test_the_recommended_value_sends_away_what_the_document_says(engine, prompts, sent):
    rows = engine.route_many(prompts, tau=0.2, min_support=LEAST, unsupported="gpt-4o-mini-2024-07-18")
    assert sum(row.cause == "unsupported" for row in rows) == sent
    assert {row.model for row in rows if row.cause == "unsupported"} == {"gpt-4o-mini-2024-07-18"}


def test_the_best_single_candidate_of_the_default_bundle_is_known(engine):
    assert engine.policy(tau=0.2, min_support=LEAST).unsupported.candidate in engine.bundle.names


def test_few_prompts_like_the_fitting_data_are_sent_away(engine, request):
    folder = request.config.getoption("--outcomes")
    if folder is None:
        pytest.skip(skips.OUTCOMES)
    pytest.importorskip("pyarrow", reason=skips.PYARROW)
    (path,) = (path for path in find_sources(folder) if path.name == "zeroeval")
    outcomes = load_outcomes(path)
    prompts = [prompt for prompt, split in zip(outcomes.prompts, outcomes.splits, strict=True) if split == "test"]
    support = engine.route_many(prompts, tau=0.2).support
    assert (len(prompts), [int((support < least).sum()) for least in (LEAST, 0.05, 0.1)]) == (568, [4, 19, 46])
    assert np.isfinite(support).all()


def test_the_shell_marks_a_prompt_of_support_0_and_takes_both_options(capsys):
    assert main(["route", "hello", "--tau", "0.2"]) == 0
    assert "[support 0: unlike the fitting data]" in capsys.readouterr().out
    assert main(["explain", "hello", "--tau", "0.2"]) == 0
    assert "support 0: the prompt is unlike the fitting data" in capsys.readouterr().out
    assert main(["route", "hello", "--tau", "0.2", "--min-support", "0.02", "--unsupported", "cheapest"]) == 0
    out = capsys.readouterr().out
    assert "unsupported" in out
    assert "[support 0" not in out
    assert main(["route", "hello", "--tau", "0.2", "--unsupported", "cheapest"]) == 1
    assert "unsupported: says who answers" in capsys.readouterr().err
