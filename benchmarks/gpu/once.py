"""python -m benchmarks.gpu.once launches each shape of the decide kernel a few times, for compute-sanitizer and ncu."""

from __future__ import annotations

import sys

from ipr_engine.kernels.variant import launch_params

from .tune import DIM, make_launch

SIZES = ((11, 1), (11, 64), (64, 5), (1000, 3))  # (models, batch): one program twice, and the split


def main() -> int:
    import torch

    for models, batch in SIZES:
        launch = make_launch("cuda", models, launch_params(models, DIM, "sm_90"), batch)
        for _ in range(2):
            answer = launch().numpy()
        assert (answer["status"] == 0).all(), (models, batch, answer["status"])
    torch.cuda.synchronize()
    print("launched", SIZES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
