"""A `BertPlan` holds the weights of a BERT encoder on a device, in the form that the kernels read.

    assert not BertPlan.unfit(model.config)
    plan = BertPlan(model, device="cuda")        # packs and copies; once per model

Device "cpu" works under Triton's interpreter (TRITON_INTERPRET=1 before triton is imported): slow, for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError

from .bert_forms import BertShape

PURPOSE = "the fused encoder"  # the words of an error where torch or triton is missing
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
HEADS = (32, 64)
MOST_DIM, STEP = 1024, 64


@dataclass(frozen=True)
class BertLayer:
    """A `BertLayer` is one layer's weights: matrices (out, in) float16, vectors float32.

    qkv (3 * dim, dim) and widen (wide, dim) are products of a LayerNorm: its scale is in the matrix, its shift in the bias, and
    `sums` are the matrix's rows added up (norm.py). Scale and shift themselves are for the residual.
    """

    norm_scale: Any
    norm_shift: Any
    qkv: Any
    qkv_sums: Any
    qkv_bias: Any
    out: Any
    out_bias: Any
    wide_scale: Any
    wide_shift: Any
    widen: Any
    widen_sums: Any
    widen_bias: Any
    narrow: Any
    narrow_bias: Any


class BertPlan:
    """A `BertPlan` holds a BERT encoder packed on a device; it does not change after construction.

    Args:
        model: transformers' BertModel, weights of any float type; those of the plan's type and device already are shared with it.
        device: a torch device: "cuda", "cuda:1"; "cpu" under Triton's interpreter.
        dtype: "float16", of matrices and activations; sums, biases and LayerNorm are float32.
    Attributes:
        dim, layers, eps, max_tokens, vocabulary: of the model; shape: what the kernels' code depends on.
        norm_scale, norm_shift: (dim,) float32, the last LayerNorm, which whoever reads the states applies.
        words, places, stack: embeddings, position plus type, and the layers' weights.
        arch, pdl: "sm_90" and so on, None on the CPU; whether a launch can begin early there.
    Raises:
        InvalidInputError: the model does not fit (`unfit`), its weights do not fit float16, another dtype.
        BackendUnavailableError: torch is missing.
    """

    def __init__(self, model: Any, device: Any = "cuda", dtype: str = "float16") -> None:
        torch = need("torch", PURPOSE, "gpu")
        reason = self.unfit(model.config)
        if reason:
            raise InvalidInputError(f"model: {reason}; the torch tier runs it")
        if dtype != "float16":
            raise InvalidInputError(f"dtype: expected 'float16', got {dtype!r}")
        config = model.config
        self.device = torch.device(device)
        self.dim, self.layers, self.eps = config.hidden_size, config.num_hidden_layers, float(config.layer_norm_eps)
        self.max_tokens, self.vocabulary = config.max_position_embeddings, config.vocab_size
        self.shape = BertShape(
            dim=self.dim,
            head=self.dim // config.num_attention_heads,
            wide=config.intermediate_size,
            activation=ACTIVATIONS[config.hidden_act],
            eps=self.eps,
        )
        self.arch, self.pdl = None, False
        if self.device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(self.device)
            self.arch, self.pdl = f"sm_{major}{minor}", major >= 9
        packer = _Packer(torch, model.state_dict(), self.device)
        self.words = packer.matrix("embeddings.word_embeddings")
        self.places = packer.places()
        self.stack = [packer.layer(at) for at in range(self.layers)]
        self.norm_scale, self.norm_shift = packer.norm(self.layers)

    @staticmethod
    def unfit(config: Any) -> str:
        """Return why the kernels do not compute a model of this transformers config; "" where they do."""
        kind = getattr(config, "model_type", None)
        if kind != "bert":
            return f"model_type: expected 'bert', got {kind!r}"
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            return "is_decoder: expected an encoder, got a decoder"
        if config.hidden_act not in ACTIVATIONS:
            return f"hidden_act: expected one of {', '.join(ACTIVATIONS)}, got {config.hidden_act!r}"
        position = getattr(config, "position_embedding_type", None) or "absolute"
        if position != "absolute":
            return f"position_embedding_type: expected 'absolute', got {position!r}"
        dim, wide, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        if dim % STEP or not STEP <= dim <= MOST_DIM:
            return f"hidden_size: expected a multiple of {STEP} up to {MOST_DIM}, got {dim}"
        if wide % STEP or wide < dim:
            return f"intermediate_size: expected a multiple of {STEP} from hidden_size {dim}, got {wide}"
        if dim % heads or dim // heads not in HEADS:
            return (
                f"num_attention_heads: expected heads of {' or '.join(map(str, HEADS))} elements, got {dim} / {heads}"
            )
        if config.vocab_size * dim >= 2**31:  # the kernel counts them in int32
            return f"vocab_size: expected vocab_size * hidden_size below 2^31, got {config.vocab_size} * {dim}"
        return ""


class _Packer:
    """A `_Packer` makes the device's tensors of a state dict."""

    def __init__(self, torch: Any, state: Any, device: Any) -> None:
        self._torch, self._state, self._device = torch, state, device

    def matrix(self, name: str) -> Any:
        """Return the weights of that name in float16."""
        return self._half(name, self._state[f"{name}.weight"].detach())

    def vector(self, name: str) -> Any:
        """Return a vector in float32."""
        return self._state[name].detach().float().to(self._device).contiguous()

    def of_norm(self, names: Sequence[str], scale: Any, shift: Any) -> tuple[Any, Any, Any]:
        """Return weights, sums and bias of products of LayerNorm(y), one above the other, for products of y."""
        weights = self._torch.cat([self._state[f"{name}.weight"].detach().double().to(self._device) for name in names])
        bias = self._torch.cat([self._state[f"{name}.bias"].detach().double().to(self._device) for name in names])
        half = self._half(names[0], weights * scale.double())
        # of the rounded weights: what the mean adds to the product is then taken out again to the last bit of float32
        sums = half.double().sum(dim=1)
        return half, sums.float().contiguous(), (bias + weights @ shift.double()).float().contiguous()

    def _half(self, name: str, weights: Any) -> Any:
        found = weights.to(self._torch.float16)
        if not bool(self._torch.isfinite(found).all()):
            raise InvalidInputError(
                f"model: {name} has weights outside the range of float16; the torch tier runs it in float32"
            )
        return found.to(self._device).contiguous()

    def places(self) -> Any:
        """Return (positions, dim) float32: position plus the type of a single sentence."""
        position, kind = (self._state[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
        return (position.detach().float() + kind.detach()[0].float()).to(self._device).contiguous()

    def norm(self, layer: int) -> tuple[Any, Any]:
        """Return scale and shift of the LayerNorm whose output a layer reads; that of the layer behind the last is the model's."""
        name = f"encoder.layer.{layer - 1}.output" if layer else "embeddings"
        return self.vector(f"{name}.LayerNorm.weight"), self.vector(f"{name}.LayerNorm.bias")

    def layer(self, layer: int) -> BertLayer:
        at = f"encoder.layer.{layer}."
        out, widen, narrow = (f"{at}{name}.dense" for name in ("attention.output", "intermediate", "output"))
        scale, shift = self.norm(layer)
        wide_scale, wide_shift = (self.vector(f"{at}attention.output.LayerNorm.{name}") for name in ("weight", "bias"))
        qkv = self.of_norm([f"{at}attention.self.{name}" for name in ("query", "key", "value")], scale, shift)
        wide = self.of_norm([widen], wide_scale, wide_shift)
        return BertLayer(
            norm_scale=scale,
            norm_shift=shift,
            qkv=qkv[0],
            qkv_sums=qkv[1],
            qkv_bias=qkv[2],
            out=self.matrix(out),
            out_bias=self.vector(f"{out}.bias"),
            wide_scale=wide_scale,
            wide_shift=wide_shift,
            widen=wide[0],
            widen_sums=wide[1],
            widen_bias=wide[2],
            narrow=self.matrix(narrow),
            narrow_bias=self.vector(f"{narrow}.bias"),
        )
