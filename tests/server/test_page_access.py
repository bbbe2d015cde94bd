"""The page can be read, wide and narrow, light and dark, and used by keys alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.chromium import Chromium
from tests.support.page_readings import NARROW, WIDE


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_its_window_and_can_be_read(page: Chromium, width: int, dark: bool) -> None:
    page.look(width, dark=dark)
    page.tab_to("prompt")
    page.type("What is 2 + 2?")
    page.tab_to("go")
    page.press("Enter")
    page.until("document.getElementById('explained')")
    assert page.read("document.documentElement.scrollWidth") == width
    far = "one => one.getBoundingClientRect().right > innerWidth + 1"
    outside = f"[...document.querySelectorAll('main *')].filter({far}).map(one => one.outerHTML.slice(0, 120))"
    assert page.read(outside) == []
    for foreground, background in (
        ("--ink", "--paper"),
        ("--quiet", "--paper"),
        ("--link", "--paper"),
        ("--bad", "--bad-paper"),
    ):
        assert contrast(named(page, foreground), named(page, background)) >= 4.5, (foreground, background)


def named(page: Chromium, name: str) -> list[int]:
    """Return red, green and blue of a colour of the page."""
    value = page.read(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
    digits = value[1:] if len(value) == 7 else "".join(2 * one for one in value[1:])
    return [int(digits[at : at + 2], 16) for at in (0, 2, 4)]


def contrast(*colours: Sequence[int]) -> float:
    """Return the contrast of two colours, as WCAG has it."""
    light = []
    for colour in colours:
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_bars_of_every_tone_stand_out_and_what_stands_on_them_can_be_read(page: Chromium, dark: bool) -> None:
    page.look(WIDE, dark=dark)
    read = """(() => {
      const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true}), found = [];
      const light = colour => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      for (let step = 0; step <= 40; step++) {
        dear.set('tried', step / 40);
        const made = strip([[0, 'tried']], 0);
        document.body.append(made);
        const part = getComputedStyle(made.querySelector('i'));
        found.push([light(part.backgroundColor), paper, light(part.color)]);
        made.remove();
      }
      dear.delete('tried');
      return found;
    })()"""
    tones = page.read(read)
    assert len({tuple(tone) for tone, _, _ in tones}) > 30
    for tone, paper, text in tones:
        assert contrast(tone, paper) >= 3, tone
        assert contrast(tone, text) >= 4.5, (tone, text)


def test_axes_have_two_ticks_or_more_whose_labels_differ(page: Chromium) -> None:
    labels = """(() => {
      const found = [];
      for (const width of [300, 358, 480, 600]) for (const low of [.013, .21, 1.01, 2.7, 9.8]) for (const by of [1.1, 1.2, 1.6, 5, 900])
        found.push([low, by, decades(low, low * by, width).map(c => `$${+c.toPrecision(4)}`)]);
      return found;
    })()"""
    for low, by, told in page.read(labels):
        assert 2 <= len(told) == len(set(told)) <= 13, (low, by, told)
    assert (
        len(
            set(page.read("[...document.querySelectorAll('#curve text[text-anchor=end]')].map(one => one.textContent)"))
        )
        > 2
    )


def test_a_border_near_an_end_does_not_read_as_the_end(page: Chromium) -> None:
    told = page.read("[0, 1.1920929e-7, 0.0002, 0.00049, 0.0006, 0.25, 0.9996, 0.99999994, 1].map(border)")
    assert told == ["0.000", "> 0", "0.0002", "0.0005", "0.001", "0.250", "0.9996", "< 1", "1.000"]


def test_keys_alone_reach_everything_and_show_where_they_are(page: Chromium) -> None:
    reached = []
    for _ in range(12):
        page.press("Tab")
        found = page.read("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        if found[0] in reached or not found[0]:
            break
        assert found[1] == "solid", found
        reached.append(found[0])
    assert reached == ["tau", "prompt", "trytau", "go"]
    for field in ("tau", "prompt", "trytau", "key", "trymodel"):
        assert page.read(f"document.getElementById('{field}').labels.length") == 1
    for told in ("live", "change", "tried", "trouble"):
        assert page.read(f"document.getElementById('{told}').matches('[aria-live], [role=status], [role=alert]')")
