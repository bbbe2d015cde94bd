"""python -m benchmarks.gpu.pack ENCODER_DIR DEST makes a tree to carry to a machine with a GPU and no network.

DEST gets the files that git does not ignore, without pictures and documents, the built extensions, and DEST/encoder with the weights in
float16. More than 60 MiB is an error: what carries it may take no more. On the other machine: `benchmarks/gpu.sh encoder`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from ..harness.checkout import CARRIED, ROOT, head

LIMIT_MIB = 60
NOT_CARRIED = (".png", ".svg")
NOT_CARRIED_FOLDERS = ("docs/", "benchmarks/results/")
ENCODER_FILES = ("*.json", "*.txt", "*.model", "1_Pooling/*.json")


def pack(encoder: Path, dest: Path) -> float:
    """Write DEST; return its size in MiB.

    Raises:
        SystemExit: DEST exists, ENCODER_DIR has no model.safetensors, an extension is older than its source, or the tree is larger
            than LIMIT_MIB.
    """
    if dest.exists():
        raise SystemExit(f"DEST: expected a path that does not exist, got {dest}")
    if not (encoder / "model.safetensors").is_file():
        raise SystemExit(f"ENCODER_DIR: expected a folder with model.safetensors, got {encoder}")
    for built in _extensions():
        _require_newest(built)
    for name in _files():
        _copy(ROOT / name, dest / name)
    for built in _extensions():
        _copy(built, dest / "ipr_engine" / built.name)
    (dest / CARRIED).write_text(f"{head(ROOT)}\n")
    pack_encoder(encoder, dest / "encoder")
    size = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20
    if size > LIMIT_MIB:
        raise SystemExit(
            f"DEST: {size:.1f} MiB, more than the {LIMIT_MIB} that can be carried; choose a smaller encoder"
        )
    return size


def pack_encoder(encoder: Path, dest: Path) -> None:
    """Write the encoder's folder with float16 weights: what a GPU computes in, in half the bytes."""
    import torch
    from safetensors.torch import load_file, save_file

    for pattern in ENCODER_FILES:
        for path in encoder.glob(pattern):
            _copy(path, dest / path.relative_to(encoder))
    weights = load_file(encoder / "model.safetensors")
    halves = {name: value.half() if value.dtype == torch.float32 else value for name, value in weights.items()}
    if not all(bool(torch.isfinite(value).all()) for value in halves.values() if value.is_floating_point()):
        raise SystemExit("ENCODER_DIR: its weights do not fit float16")
    save_file(halves, dest / "model.safetensors", metadata={"format": "pt"})


def _extensions() -> list[Path]:
    return sorted((ROOT / "ipr_engine").glob("_C*.so"))


def _require_newest(built: Path) -> None:
    sources = [ROOT / "setup.py", *(path for path in (ROOT / "csrc").rglob("*") if path.is_file())]
    newer = [path for path in sources if path.stat().st_mtime > built.stat().st_mtime]
    if newer:
        raise SystemExit(
            f"{built.name}: older than {newer[0].relative_to(ROOT)}; build it again (pip install -e .), or remove it"
        )


def _files() -> list[str]:
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")[:-1]
    return [name for name in names if not name.endswith(NOT_CARRIED) and not name.startswith(NOT_CARRIED_FOLDERS)]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
    else:
        shutil.copy2(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path, metavar="ENCODER_DIR")
    parser.add_argument("dest", type=Path, metavar="DEST")
    arguments = parser.parse_args()
    size = pack(arguments.encoder, arguments.dest)
    print(f"{arguments.dest}: {size:.1f} MiB of at most {LIMIT_MIB}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
