"""What the whole LLM makes of texts, by way of its two halves."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.encoder import encode_by_whole_llm
from bahe_tasks.core.tokens import TextTokenizer
from benchmarks.kit.tiny_llms import TINY_LLMS
from benchmarks.model_matrix import save_checkpoint

TEXTS = ["order takeout", "book a hotel in town", "order", "pay the rent"]


@pytest.mark.parametrize("family", TINY_LLMS)
def test_it_is_the_llm_s_own_last_hidden_states_pooled_final_norm_included(family, tmp_path):
    save_checkpoint(family, TEXTS, tmp_path)
    encoder = EncoderConfig(checkpoint=str(tmp_path), num_shallow_layers=1, device="cpu")
    found = encode_by_whole_llm(TEXTS, checkpoint_dir=tmp_path, encoder=encoder)
    llm = AutoModel.from_pretrained(tmp_path).eval()
    tokenize = TextTokenizer(tmp_path, encoder, num_token_ids=len(llm.get_input_embeddings().weight))
    for ids, vector in zip(tokenize(TEXTS), found, strict=True):
        with torch.no_grad():
            hidden = llm(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
        np.testing.assert_allclose(vector, hidden[0].mean(0), atol=2e-3, rtol=2e-3)
