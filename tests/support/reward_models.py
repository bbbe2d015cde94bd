"""A reward model of the real class with random weights and a tokenizer of its own, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
TEXT = "what is the sum of two and three ? five it four maybe hello world a b c d e . ,"
WORDS = TEXT.split()


def make_reward_model(folder: Path, *, kind: str = "qwen3", labels: int = 1, seed: int = 0, pad: bool = True) -> Path:
    """Write config, weights and tokenizer to `folder`; kind: qwen3 or llama."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen3Config
    from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

    special = ["<pad>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|end|>",
        additional_special_tokens=special[3:],
        **({"pad_token": "<pad>"} if pad else {}),
    )
    wrapped.chat_template = TEMPLATE
    sizes: dict[str, Any] = {
        "vocab_size": len(special) + len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "num_labels": labels,
        "pad_token_id": 0 if pad else None,
        "bos_token_id": None,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    }
    torch.manual_seed(seed)
    config = (Qwen3Config if kind == "qwen3" else LlamaConfig)(**sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
