import pytest
import torch

from bahe_tasks.core.deep_attention import allowed_pairs, attends_as_asked, four_dimensional_mask
from bahe_tasks.core.llm_split import LlmSplit, UnsplittableArchitectureError, empty_deep_layers
from benchmarks.kit.tiny_llms import NUM_LAYERS, TINY_LLMS, WIDTH

PADDED = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0]])
REFUSED = {
    "bidirectional": {"bloom", "deberta-v3", "gpt-neo", "qwen3.5"},
    "causal": {"bloom", "deberta-v3", "qwen3.5"},
}
ATTENDS_IN_BOTH_DIRECTIONS = ["bert", "roberta", "mpnet", "eurobert", "nomic-bert", "electra"]
ATTENDS_BACKWARDS = ["llama", "qwen3", "gemma", "gpt-neox", "gpt2", "olmo2"]  # those without windows


def _hidden(rows: int, size: int) -> torch.Tensor:
    return torch.randn(rows, size, WIDTH, generator=torch.Generator().manual_seed(4))


def _deep(family, attention, num_shallow_layers=1):
    return LlmSplit.of(TINY_LLMS[family](), num_shallow_layers, deep_attention=attention).deep


def test_the_mask_by_hand():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    both = [[[1, 1, 0], [1, 1, 0], [1, 1, 1]], [[1, 1, 1], [0, 1, 1], [0, 1, 1]]]  # a padded one also sees itself
    back = [[[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 1]]]
    for attention, expected in (("bidirectional", both), ("causal", back)):
        boolean = four_dimensional_mask(mask, attention, implementation="sdpa", dtype=torch.float32)
        added = four_dimensional_mask(mask, attention, implementation="eager", dtype=torch.float32)
        assert boolean.shape == (2, 1, 3, 3)
        assert boolean[:, 0].long().tolist() == expected
        assert (added == 0).equal(boolean)
        assert added.isfinite().all()


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", TINY_LLMS)
def test_an_output_depends_on_the_behaviors_asked_for_and_never_on_padding(family, attention):
    if family in REFUSED[attention]:
        with pytest.raises(UnsplittableArchitectureError, match=f"{attention}.*choose as_trained"):
            _deep(family, attention)
        return
    deep = _deep(family, attention)
    hidden = _hidden(4, 7)
    with torch.inference_mode():
        outputs = deep(hidden, PADDED)
        for changed in range(7):
            other = hidden.clone()
            other[:, changed] = hidden[:, changed].flip(1)  # a shift would vanish behind a norm
            differs = (deep(other, PADDED) - outputs).abs().amax(2) > 1e-5  # (B, S)
            expected = allowed_pairs(PADDED, attention)[:, :, changed]
            assert differs[PADDED.bool()].equal(expected[PADDED.bool()])


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", [f for f in TINY_LLMS if f not in REFUSED["bidirectional"]])
def test_padding_gives_no_gradient_that_is_not_a_number(family, attention):
    deep = _deep(family, attention)
    hidden = _hidden(4, 7).requires_grad_()
    deep(hidden, PADDED).square().mean().backward()  # padded positions too
    assert hidden.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in deep.parameters())


@pytest.mark.parametrize(
    ("family", "attention"),
    [(f, "bidirectional") for f in ATTENDS_IN_BOTH_DIRECTIONS] + [(f, "causal") for f in ATTENDS_BACKWARDS],
)
def test_asking_for_what_the_architecture_does_changes_nothing(family, attention):
    hidden, present = _hidden(4, 7), PADDED.bool()
    trained, asked = _deep(family, "as_trained"), _deep(family, attention)
    with torch.inference_mode():
        expected = trained(hidden, PADDED)[present]
        torch.testing.assert_close(asked(hidden, PADDED)[present], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_causal_in_one_encoder_layer_is_each_prefix_alone_read_at_its_end(family):
    # The first three positions, which no window of ModernBERT cuts off.
    hidden = _hidden(2, 3)
    mask = torch.ones(2, 3, dtype=torch.long)
    trained, made_causal = (_deep(family, attention, NUM_LAYERS - 1) for attention in ("as_trained", "causal"))
    with torch.inference_mode():
        causal = made_causal(hidden, mask)
        for end in (1, 2, 3):
            alone = trained(hidden[:, :end], mask[:, :end])[:, -1]
            torch.testing.assert_close(causal[:, end - 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt-neox", "gpt2"])
def test_bidirectional_in_one_decoder_layer_is_each_position_read_after_all_others(family):
    hidden, size = _hidden(2, 6), 6
    mask = torch.ones(2, size, dtype=torch.long)
    trained, asked = (_deep(family, attention, NUM_LAYERS - 1) for attention in ("as_trained", "bidirectional"))
    with torch.inference_mode():
        bidirectional = asked(hidden, mask)
        for i in range(size):
            order = [*(j for j in range(size) if j != i), i]
            # Each keeps the position it had, so that distances stay as they are.
            positions = torch.tensor(order).repeat(2, 1)
            read = trained.llm(inputs_embeds=hidden[:, order], attention_mask=mask, position_ids=positions)
            torch.testing.assert_close(bidirectional[:, i], read.last_hidden_state[:, -1], rtol=1e-4, atol=1e-4)


def test_the_setting_reaches_over_windows():
    deep = _deep("mistral", "causal", NUM_LAYERS - 1)  # one layer with a window of three
    hidden, mask = _hidden(1, 7), torch.ones(1, 7, dtype=torch.long)
    other = hidden.clone()
    other[:, 0] = hidden[:, 0].flip(1)
    with torch.inference_mode():
        assert not torch.allclose(deep(hidden, mask)[:, 6], deep(other, mask)[:, 6], atol=1e-4)


def test_deep_layers_rebuilt_from_configuration_attend_as_asked():
    split = LlmSplit.of(TINY_LLMS["gemma2"](), 1, deep_attention="bidirectional")
    rebuilt = empty_deep_layers(split.llm_config, 1, deep_attention="bidirectional")
    rebuilt.load_state_dict(split.deep.state_dict())
    hidden = _hidden(4, 7)
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(hidden, PADDED), split.deep(hidden, PADDED))


def test_no_deep_layer_attends_to_nothing_else_and_is_not_refused():
    _deep("bloom", "causal", NUM_LAYERS)


def test_the_check_itself_tells_a_leak_from_none():
    def deep(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        present = mask.unsqueeze(2)
        return torch.cumsum(hidden * present, 1) + leak * hidden.sum(1, keepdim=True)

    sizes = {"width": 4, "dtype": torch.float32, "device": torch.device("cpu")}
    leak = 0.0
    assert attends_as_asked(deep, "causal", **sizes)
    assert not attends_as_asked(deep, "bidirectional", **sizes)
    leak = 1e-3
    assert not attends_as_asked(deep, "causal", **sizes)
