"""make_chat_texts.py writes the texts that the coefficients of emoji and of long runs were fitted to, for `ipr tokens fit`.

    python csrc/tools/make_chat_texts.py > texts.jsonl       # a second run gives the same bytes

Messages and headings were written for this; emoji are drawn, those that people use most the most often.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

SEED = 7
COMMON = (  # about in order of use; a quarter of the draws are any emoji
    "😂 ❤️ 😍 🤣 😊 🙏 💕 😭 😘 👍 😅 👏 😁 🔥 💔 💖 💙 😢 🤔 😆 🙄 💪 😉 ☺️ 👌 🤗 💜 😔 😎 😇 🌹 🤦 🎉 💞 ✌️ ✨ 🤷 😱 😌 🌸 "
    "🙌 😋 💗 💚 😏 💛 🙂 💓 🤩 😄 😀 🖤 😃 💯 🙈 👇 🎶 😒 🤭 ❣️ 🥰 🥺 🎂 🎁 ☀️ ⭐ ✅ 🚀 👀 💡 📌 ⚠️ 🐶 🍕 ☕ 🏆 📅 📝 💻 🎯"
)
RANGES = ((0x1F300, 0x1F650), (0x1F680, 0x1F6FD), (0x1F90C, 0x1FA00), (0x1FA70, 0x1FAFA), (0x2600, 0x27C0))
PEOPLE = "👨 👩 🧑 👧 👦"
THINGS = "💻 🎓 🍳 🚀 🔬 🎨 ⚕️ ⚖️ ✈️"
GESTURES = "👍 👏 🙏 💪 👌 🙌 ✌️ 👋 🤷 🤦 🏃 💃 👩 👨 🧑"
SIGNS = "♀️ ♂️"
FLAGS = "US GB DE FR JP KR IN BR ES IT UA PL MX CA CN TR NL SE"
TONES = [chr(code) for code in range(0x1F3FB, 0x1F400)]
JOINER = "\u200d"
STYLES = (0x1D400, 0x1D4D0, 0x1D5D4, 0x1D63C)  # bold; script, sans-serif and sans-serif italic, bold too

MESSAGES = {
    "en": (
        "thanks so much|see you tomorrow|that is hilarious|on my way|sounds good to me|happy birthday|can you help me with my "
        "essay|I passed the exam|what should I cook tonight|no worries at all|this song is amazing|my cat did it again|we won "
        "the match|good luck with the interview|I can't believe it|Please write a caption for this photo|just landed in Rome|"
        "you made my day|it is so hot today|who is coming on Friday?|I am so tired of Mondays|Congrats on the new job!|Tell me "
        "a joke|make this tweet sound more fun|need coffee now|Let me know when you are home|Best pizza in town, hands down|"
        "Is it going to rain on the weekend?|Here is the plan for the trip|so proud of the whole team"
    ),
    "de": "Danke dir|bis morgen dann|das war richtig gut|Alles Gute zum Geburtstag|Kannst du mir kurz helfen?|ich bin gleich da",
    "fr": "merci beaucoup|à demain|c'est trop drôle|bon anniversaire|tu viens ce soir ?|j'arrive dans dix minutes",
    "es": "muchas gracias|nos vemos mañana|qué risa|feliz cumpleaños|¿me ayudas con esto?|ya voy en camino",
    "pt": "muito obrigado|até amanhã|parabéns pelo trabalho|que dia lindo|você vem hoje?|bom dia a todos",
    "ru": "спасибо большое|до завтра|это очень смешно|с днём рождения|поможешь мне?|уже еду",
    "ja": "ありがとうございます|また明日ね|お誕生日おめでとう|今日は暑いですね|これ手伝ってくれる？|最高でした",
    "zh": "谢谢你|明天见|太好笑了|生日快乐|可以帮我一下吗？|今天天气真好",
    "hi": "बहुत धन्यवाद|कल मिलते हैं|जन्मदिन मुबारक हो|क्या आप मेरी मदद करेंगे?",
    "tr": "çok teşekkürler|yarın görüşürüz|iyi ki doğdun|bugün hava çok güzel",
}
HEADINGS = (
    "Key takeaways|Getting started|What we changed|Next steps|Deploy is done|Tests pass|Deadline: Friday|Budget|Ideas for the "
    "party|Warning|Agenda|Shopping list|Results of the survey|Day 1: arrival|Day 2: the museum|Why it matters|Open questions"
)
RULED = "Results|Section 2|Part one|Notes|Input|Output of the run|Question|Answer below|Chapter 4|Log"


class Draws:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(SEED)
        self._any = [
            chr(code) for first, end in RANGES for code in range(first, end) if unicodedata.category(chr(code)) == "So"
        ]
        self._common = COMMON.split(" ")
        weights = 1 / (3 + np.arange(len(self._common)))
        self._weights = weights / weights.sum()

    def below(self, end: int) -> int:
        return int(self._rng.integers(end))

    def one(self, of: Sequence[str]) -> str:
        return of[self.below(len(of))]

    def word(self, of: str) -> str:
        return self.one(of.split(" "))

    def emoji(self) -> str:
        if self.below(4) == 0:
            return self.one(self._any)
        return self._common[int(self._rng.choice(len(self._common), p=self._weights))]

    def several(self) -> str:
        """Draw one emoji, the same again, or different ones."""
        if self.below(3) == 0:
            return self.emoji() * (2 + self.below(3))
        return "".join(self.emoji() for _ in range(1 + self.below(3)))

    def sequence(self) -> str:
        """Draw an emoji of several code points."""
        kind = self.below(6)
        if kind <= 1:
            return self.word(GESTURES)[0] + self.one(TONES)
        if kind == 2:
            return "".join(chr(0x1F1E6 + ord(letter) - ord("A")) for letter in self.word(FLAGS))
        if kind == 3:
            return self.word(PEOPLE) + (self.one(TONES) if self.below(2) else "") + JOINER + self.word(THINGS)
        if kind == 4:
            return self.word("🤷 🤦 🏃 🙋") + (self.one(TONES) if self.below(2) else "") + JOINER + self.word(SIGNS)
        return JOINER.join(self.word(PEOPLE) for _ in range(2 + self.below(3)))


def message_with(draws: Draws, emoji: str, before: str, message: str) -> str:
    """Put the emoji in front of a message, behind it or within."""
    place = draws.below(5)
    if place == 0:
        return f"{emoji} {message}"
    if place == 1:
        return f"{message}{emoji}"
    if place == 2 and " " in message:
        head, _, tail = message.partition(" ")
        return f"{head} {emoji} {tail}"
    return f"{message}{before} {emoji}"


def styled(letter: str, first: int) -> str:
    """Return a letter of ASCII in the alphabet of mathematics whose capital A is `first`; anything else as it is."""
    if not letter.isalpha():
        return letter
    return chr(first + ord(letter.upper()) - ord("A") + 26 * letter.islower())


def lines(draws: Draws) -> Iterator[tuple[str, str, str]]:
    """Yield text, group and kind of each line."""
    ends = ("", "", "!", "...", "!!")
    for language, found in MESSAGES.items():
        for message in found.split("|"):
            for _ in range(8):
                yield message_with(draws, draws.several(), draws.one(ends), message), language, "chat"
            for _ in range(2):
                yield message_with(draws, draws.sequence(), draws.one(ends), message), language, "sequences"
    for _ in range(300):
        yield draws.one(["", "", " "]).join(draws.emoji() for _ in range(1 + draws.below(8))), "emoji", "alone"
        yield draws.one(["", " "]).join(draws.sequence() for _ in range(1 + draws.below(3))), "emoji", "sequences alone"
    headings = HEADINGS.split("|")
    for _ in range(200):
        chosen = [draws.one(headings) for _ in range(1 + draws.below(4))]
        style = draws.one(["{} **{}**", "## {} {}", "- {} {}", "{} {}:"])
        yield "\n".join(style.format(draws.emoji(), heading) for heading in chosen), "headings", "headings"
    spoken = [message for found in MESSAGES.values() for message in found.split("|") if message.isascii()]
    for message in spoken:
        for first in STYLES:
            yield "".join(styled(letter, first) for letter in message), "styled", "styled"
    for message in MESSAGES["zh"].split("|") * 10:
        rare = "".join(chr(0x20000 + draws.below(0xA6DF)) for _ in range(1 + draws.below(3)))
        yield f"{rare}{message}", "rare han", "rare han"
    for _ in range(400):
        rule = draws.word("= - * _ # . ~ + ! ? a A x z e o \t") * (6 + draws.below(draws.one([20, 60, 200])))
        yield (
            draws.one(["{0}\n{1}\n{0}\n", "{1}\n{0}\n", "{1} {0}"]).format(rule, draws.one(RULED.split("|"))),
            "rules",
            "runs",
        )
    for _ in range(100):
        yield (
            "{}{}{}".format(draws.one(RULED.split("|")), "\n" * (6 + draws.below(80)), draws.one(headings)),
            "breaks",
            "runs",
        )


def main() -> None:
    for text, group, kind in lines(Draws()):
        sys.stdout.write(json.dumps({"text": text, "group": group, "kind": kind}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
