import copy

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from bahe_tasks.core import llm_cut
from bahe_tasks.core.llm_split import LayerCountError, LlmSplit, UnsplittableArchitectureError, empty_deep_layers
from benchmarks.kit.tiny_llms import NUM_LAYERS, TINY_LLMS, WIDTH, tiny_llm

# Nine tokens: three times the window of every family that has one.
PADDED_RIGHT = torch.tensor([[1] * 9, [1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
PADDED_LEFT = PADDED_RIGHT.flip(1)
NOT_WITHOUT_LAYERS = {"deberta-v3"}  # its forward function needs one layer
T5 = T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=32, num_layers=3, num_heads=4)


@pytest.fixture(scope="module")
def family_llm():
    """Each family is built once; a test cuts a copy."""
    built = {}

    def build(family: str) -> PreTrainedModel:
        if family not in built:
            built[family] = TINY_LLMS[family]()
        return copy.deepcopy(built[family])

    return build


def _difference(whole: PreTrainedModel, split: LlmSplit, mask: torch.Tensor) -> float:
    """Largest difference at a token, as a share of the largest number."""
    input_ids = torch.randint(0, 60, mask.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = whole(input_ids=input_ids, attention_mask=mask).last_hidden_state[mask.bool()]
        halves = split.deep(split.shallow(input_ids, mask), mask)[mask.bool()]
    assert expected.isfinite().all()
    return float((halves - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("num_shallow_layers", range(NUM_LAYERS + 1))
@pytest.mark.parametrize("family", TINY_LLMS)
def test_deep_of_shallow_equals_the_whole_llm_padding_included(family_llm, family, num_shallow_layers):
    if family in NOT_WITHOUT_LAYERS and num_shallow_layers in (0, NUM_LAYERS):
        with pytest.raises(UnsplittableArchitectureError, match=r"another encoder\.num_shallow_layers"):
            LlmSplit.of(family_llm(family), num_shallow_layers)
        return
    split = LlmSplit.of(family_llm(family), num_shallow_layers)
    for mask in (PADDED_RIGHT, PADDED_LEFT):
        assert _difference(family_llm(family), split, mask) < 1e-5  # float32 keeps 24 bits


@pytest.mark.parametrize("family", TINY_LLMS)
def test_deep_layers_rebuilt_from_configuration_and_weights_are_the_same(family_llm, family):
    split = LlmSplit.of(family_llm(family), 1)
    rebuilt = empty_deep_layers(split.llm_config, 1)
    rebuilt.load_state_dict(split.deep.state_dict())
    hidden = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = split.deep(hidden, PADDED_RIGHT)[PADDED_RIGHT.bool()]
        assert torch.equal(rebuilt.eval()(hidden, PADDED_RIGHT)[PADDED_RIGHT.bool()], expected)


@pytest.mark.parametrize("family", TINY_LLMS)
def test_padding_gives_no_gradient_that_is_not_a_number_and_every_deep_weight_gets_one(family_llm, family):
    deep = LlmSplit.of(family_llm(family), 1).deep.train()
    for mask in (PADDED_RIGHT, PADDED_LEFT):
        hidden = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(3)).requires_grad_()
        deep(hidden, mask)[mask.bool()].square().mean().backward()
        assert hidden.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in deep.parameters())


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "opt", "electra"])
def test_each_half_holds_only_its_own_layers(family_llm, family):
    llm = family_llm(family)
    layer = sum(p.numel() for name, p in llm.named_parameters() if ".0." in name)
    splits = [LlmSplit.of(family_llm(family), k) for k in (0, 1)]
    shallow_none, shallow_one = (sum(p.numel() for p in split.shallow.parameters()) for split in splits)
    deep_all, deep_two = (sum(p.numel() for p in split.deep.parameters()) for split in splits)
    assert shallow_one - shallow_none == deep_all - deep_two == layer
    pooler = sum(p.numel() for name, p in llm.named_parameters() if name.startswith("pooler."))
    assert shallow_none + deep_all == sum(p.numel() for p in llm.parameters()) - pooler
    assert deep_all - NUM_LAYERS * layer <= 2 * WIDTH  # a final norm


def test_shallow_layers_get_no_gradient(tiny_split):
    split = tiny_split()
    input_ids, mask = torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long)
    split.deep(split.shallow(input_ids, mask), mask).square().mean().backward()
    assert all(p.grad is None for p in split.shallow.parameters())
    assert all(p.grad is not None for p in split.deep.parameters())


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_a_training_step_leaves_every_bit_of_the_shallow_layers_and_their_output(family_llm, family):
    split = LlmSplit.of(family_llm(family), 1)
    halves = torch.nn.ModuleList([split.shallow, split.deep]).train()  # dropout is on where it may be
    input_ids, mask = torch.arange(27).reshape(3, 9), PADDED_RIGHT
    weights = {half: copy.deepcopy(half.state_dict()) for half in halves}
    before = split.shallow(input_ids, mask)
    optimizer = torch.optim.AdamW(halves.parameters(), lr=0.1, weight_decay=0.1)
    split.deep(before, mask).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, weights[split.shallow][name]) for name, value in split.shallow.state_dict().items())
    assert torch.equal(split.shallow(input_ids, mask), before)
    assert not any(torch.equal(p, weights[split.deep][name]) for name, p in split.deep.named_parameters())


def test_bert_deep_layers_add_no_position_to_a_behavior(tiny_split):
    deep = tiny_split("bert").deep
    hidden, mask = torch.randn(1, 4, 32), torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode():
        forward, backward = deep(hidden, mask), deep(hidden.flip(1), mask)
    torch.testing.assert_close(forward, backward.flip(1))


def test_llama_deep_layers_know_the_order_of_behaviors(tiny_split):
    deep = tiny_split("llama").deep
    hidden, mask = torch.randn(1, 4, 32), torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode():
        assert not torch.allclose(deep(hidden, mask), deep(hidden.flip(1), mask).flip(1), atol=1e-3)


def test_of_a_model_that_also_sees_images_the_language_model_is_cut():
    text = tiny_llm("gemma3_text", num_key_value_heads=2, head_dim=8)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28, "patch_size": 14}  # fmt: skip
    llm = Gemma3Model(Gemma3Config(text_config=text.config.to_dict(), vision_config=vision))
    llm.language_model.load_state_dict(text.state_dict())
    split = LlmSplit.of(llm, 1)
    assert split.llm_config["model_type"] == "gemma3_text"
    assert _difference(text, split, PADDED_LEFT) < 1e-5


UNSPLITTABLE = {
    "T5Model": (lambda: T5Model(T5), "an encoder and a decoder"),
    "T5EncoderModel": (lambda: T5EncoderModel(T5), "base model of its configuration is T5Model"),
    "LlamaForCausalLM": (lambda: LlamaForCausalLM(LlamaConfig(vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)), "is LlamaModel"),
    "AlbertModel": (lambda: tiny_llm("albert", embedding_size=32), "0 lists of 3 layers"),
    "XLMModel": (lambda: tiny_llm("xlm", emb_dim=32, n_layers=3, n_heads=4), "4 lists of 3 layers"),
    "CTRLModel": (lambda: tiny_llm("ctrl", n_embd=32, n_layer=3, n_head=4, dff=64), "does more to its input"),
    "LongformerModel": (lambda: tiny_llm("longformer", attention_window=4), "cannot be cut after"),
    "OPTModel": (lambda: tiny_llm("opt", ffn_dim=64, word_embed_proj_dim=16), "width 16"),
}  # fmt: skip


@pytest.mark.parametrize("num_shallow_layers", [0, 1, 3])
@pytest.mark.parametrize("name", UNSPLITTABLE)
def test_an_architecture_that_cannot_be_cut_is_refused_by_name_wherever_the_cut_is(name, num_shallow_layers):
    llm, reason = UNSPLITTABLE[name]
    with pytest.raises(UnsplittableArchitectureError, match=f"^{name}.*{reason}"):
        LlmSplit.of(llm().eval(), num_shallow_layers)


def test_layers_that_hand_something_else_on_are_refused_for_their_numbers():
    # With a convolution DeBERTa v2 reads the token embeddings again after its first layer.
    llm = tiny_llm("deberta-v2", relative_attention=True, conv_kernel_size=3)
    with pytest.raises(UnsplittableArchitectureError, match="do not give what the whole gives"):
        LlmSplit.of(llm, 1)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen2"])
def test_the_check_at_cutting_sees_beyond_a_window_of_thousands_of_tokens(family_llm, family, monkeypatch):
    monkeypatch.setattr(llm_cut, "_set_config_of_part", _keep_layer_types)
    llm = family_llm(family)
    llm.config.sliding_window = 4096
    with pytest.raises(UnsplittableArchitectureError, match="do not give what the whole gives"):
        LlmSplit.of(llm, 1)


def _keep_layer_types(half, parts, part):
    # The mistake to be found: the deep half takes its first layers' types for those of its own.
    half.config = copy.deepcopy(half.config)
    half.config.use_cache = False


def test_windows_are_as_they_were_after_the_check(family_llm):
    llm = family_llm("gemma2")
    llm.config.sliding_window = 4096
    split = LlmSplit.of(llm, 1)
    assert split.llm_config["sliding_window"] == 4096
    assert split.shallow.llm.config.sliding_window == split.deep.llm.config.sliding_window == 4096
    assert all(layer.self_attn.config.sliding_window == 4096 for layer in split.deep.llm.layers)


def test_an_llm_is_cut_where_gradients_are_off(family_llm):
    llm = family_llm("gpt2")
    with torch.inference_mode():
        split = LlmSplit.of(llm, 1)
        rebuilt = empty_deep_layers(split.llm_config, 1)
    assert all(p.requires_grad and not p.is_inference() for p in rebuilt.parameters())


def test_half_precision_is_cut_too(family_llm):
    for family in ("granite", "bert", "gemma2", "gpt2"):
        split = LlmSplit.of(family_llm(family).to(torch.bfloat16), 1)
        assert _difference(family_llm(family).to(torch.bfloat16), split, PADDED_RIGHT) < 0.05  # bfloat16 keeps 8 bits


def test_more_shallow_layers_than_the_llm_has_is_refused(tiny_llm):
    with pytest.raises(LayerCountError, match="between 0 and 3"):
        LlmSplit.of(tiny_llm("bert"), 4)
