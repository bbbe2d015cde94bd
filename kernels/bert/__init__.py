"""This room holds a BERT encoder as fused Triton kernels: 1 + 4 * layers launches, float16 with float32 sums (docs/bert-kernels.md).

    embedding.py       embed: ids -> token states; copies the request from the host's memory on its way
    attention.py       attend: LayerNorm, queries, keys and values of one head, attention
    linear.py          project, expand: the matrix products around it, with residual, GELU and LayerNorm
    norm.py            LayerNorm, which whoever reads a state does
    waiting.py         where a kernel waits for the one before it
    bert_reference.py  all of it in numpy, float64: the definition
    bert_plan.py       BertPlan: the weights of a transformers BertModel on the device
    bert_tiles.py      BertTiles: tiles by architecture and number of rows (bert_tiles.json)
    bert_forms.py      what each kernel is compiled for
    bert_build.py      python -m ipr_engine.kernels.bert.bert_build: what each takes of an architecture
    bert_launch.py     BertLaunch: the launches of one batch size and length

    plan = BertPlan(model, device="cuda")                             # once per model
    launch = BertLaunch(plan, ids, lengths, batch=8, tokens=64)       # checks and allocates
    launch()                                                          # neither: may be captured
    launch.states                                                     # before the last LayerNorm: plan.norm_scale, norm_shift

Importing this package imports neither torch nor Triton.
"""

from .bert_launch import BertLaunch
from .bert_plan import BertPlan
from .bert_tiles import BertTiles

__all__ = ["BertLaunch", "BertPlan", "BertTiles"]
