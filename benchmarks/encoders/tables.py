"""This module shows the figures of `ipr bench encoder` as Markdown tables and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine._extras import need

from ..harness.results import Line


def tables(lines: Sequence[Line]) -> str:
    """Return Markdown: what is absent, then time a call and ratio to the base for each stage, then shares of the roofs."""
    head = lines[0]
    parts = [
        f"Model `{head['model']}`, {head['threads']} thread(s). Roofs measured in the same run: "
        f"{head['roof_gflops']} float32 GFLOP/s (matrix product), {head['roof_gb_per_s']} GB/s (copy). "
        f"Least cosine with {head['cosine_with']}: " + ", ".join(f"{k} {v}" for k, v in head["cosine"].items()) + "."
    ]
    parts += [f"Not run: {name} ({reason})." for name, reason in head["absent"].items()]
    for stage, title in (
        ("encode", "Tokenise and embed, microseconds a call (times the base's; round by round)"),
        ("embed", "Embed alone, from ids"),
        ("tokenize", "Tokenise alone"),
    ):
        rows = [line for line in lines if line.get("stage") == stage]
        if rows:
            parts.append(f"### {title}\n\n" + _grid(rows, _time))
    rows = [line for line in lines if line.get("stage") == "embed" and "gflops" in line]
    if rows:
        parts.append(
            "### Share of the measured roofs, embed alone: of GFLOP/s / of GB/s (weights read once a call)\n\n"
            + _grid(rows, lambda line: f"{line['share_of_gflops']:.0%} / {line['share_of_gb_per_s']:.0%}")
        )
    decided = [line for line in lines if line.get("stage") == "decide"]
    if decided:
        times = ", ".join(f"{line['p50_us']:.1f} us at batch {line['batch']}" for line in decided)
        parts.append(f"Deciding on these embeddings (11 linear heads, one thread): {times}.")
    return "\n\n".join(parts) + "\n"


def _time(line: Line) -> str:
    ratio = f" ({line['vs_base']:.2f})" if "vs_base" in line else ""
    return f"{line['p50_us']:,.0f}{ratio}" if line["p50_us"] >= 100 else f"{line['p50_us']:.1f}{ratio}"


def _grid(rows: Sequence[Line], cell: Any) -> str:
    names = list(dict.fromkeys(line["impl"] for line in rows))
    places = list(dict.fromkeys((line["tokens"], line["batch"]) for line in rows))
    found = {(line["impl"], line["tokens"], line["batch"]): line for line in rows}
    table = ["| tokens x batch | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for tokens, batch in places:
        values = [cell(found[name, tokens, batch]) if (name, tokens, batch) in found else "-" for name in names]
        table.append(f"| {tokens} x {batch} | " + " | ".join(values) + " |")
    return "\n".join(table)


def plot(lines: Sequence[Line], path: Path) -> Path:
    """Draw time a prompt against its length, one panel a batch, one curve a subject; write it as PNG."""
    matplotlib = need("matplotlib", "the plot of ipr bench encoder", "eval")
    matplotlib.use("Agg")
    pyplot = need("matplotlib.pyplot", "the plot of ipr bench encoder", "eval")
    ticker = need("matplotlib.ticker", "the plot of ipr bench encoder", "eval")
    rows = [line for line in lines if line.get("stage") == "encode" and str(line["tokens"]).isdigit()]
    batches = sorted({line["batch"] for line in rows})
    figure, axes = pyplot.subplots(
        1, max(len(batches), 1), figsize=(4.2 * max(len(batches), 1), 4.2),
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    names = list(dict.fromkeys(line["impl"] for line in rows))
    for axis, batch in zip(axes[0], batches, strict=False):
        for k, name in enumerate(names):
            mine = sorted(
                (int(line["tokens"]), line["p50_us"] / batch / 1000)
                for line in rows
                if line["impl"] == name and line["batch"] == batch
            )
            if mine:
                axis.plot(*zip(*mine, strict=True), marker="osv^Dx*P"[k % 8], label=name, color=f"C{k}")
        axis.set(xscale="log", yscale="log", xlabel="tokens", title=f"batch {batch}")
        ticks = sorted({int(line["tokens"]) for line in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 2, 5))
        )  # two decades have two powers of ten: too few to read
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.minorticks_off()
        axis.grid(True, alpha=0.3)
    axes[0][0].set_ylabel("ms a prompt, tokenise and embed")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{lines[0]['model']}, {lines[0]['threads']} thread(s)")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
