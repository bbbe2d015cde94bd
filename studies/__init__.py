"""The studies are the project's evidence on public outcomes: one file each, a table and a plot under docs/studies (`ipr
study`).

cases    a source as the studies see it: candidates, splits, cost axis, resamples
views    what of a prompt an estimator sees: static table, transformer, both, text features
trials   fit on the training split, predict the test split, measure
mixing   heads on one source, another, or both
pages    a study's tables and plots as Markdown, JSON and PNG
"""
