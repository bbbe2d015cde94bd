"""The page can be read, wide and narrow, light and dark, and used by keys alone."""

from __future__ import annotations

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
        assert contrast(page, foreground, background) >= 4.5, (foreground, background)


def contrast(page: Chromium, *names: str) -> float:
    """Return the contrast of two colours of the page, as WCAG has it."""
    light = []
    for name in names:
        value = page.read(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
        digits = value[1:] if len(value) == 7 else "".join(2 * one for one in value[1:])
        parts = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


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
