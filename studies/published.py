"""This study stands beside published numbers on the same test prompts, RouterDC's and RouteLLM's, and says what is comparable."""

from __future__ import annotations

from pathlib import Path

from studies import routellm, routerdc
from studies.study import Study

SECTIONS = {routerdc.SOURCE: routerdc.section, routellm.SOURCE: routellm.section}


def run(study: Study) -> list[Path]:
    page = study.page("published", "Beside published numbers")
    page.say(
        f"""Two published routers on the prompts they were tested on. Heads are as `ipr train` fits them
        (docs/studies/estimators.md), no setting was tuned on these test prompts. Intervals: {study.draws} bootstrap
        resamples of test prompts, 95 %. What can be compared, and what cannot, stands at the head of each part."""
    )
    views = ("static",) if study.transformer is None else ("static", "transformer", "both")
    plots = [path for name in study.names(tuple(SECTIONS)) for path in SECTIONS[name](page, study, views)]
    return [*page.write(study.out), *plots]
