"""The reference is BERT: transformers' own forward pass in float64 gives the same states."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.bert_models import exact, make_bert, make_ids, torch


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize(("dim", "head"), [(128, 32), (192, 64)])
def test_the_reference_is_transformers_in_float64(dim, head, act):
    model = make_bert(dim, head, layers=2, wide=256, act=act)
    ids = make_ids([9], 9)
    with torch.inference_mode():
        wanted = model.double()(input_ids=ids.cpu().long()).last_hidden_state[0].numpy()
    model.float()
    np.testing.assert_allclose(exact(model, ids[0]), wanted, rtol=0, atol=1e-12 * dim)
