import pytest
import torch
from torch import nn

from bahe_tasks.core.llm_check import sample_tokens
from bahe_tasks.core.llm_split import LlmSplit, ShallowLayers
from bahe_tasks.core.packed_linear import PackedLinear, can_pack, pack_linears
from benchmarks.kit.tiny_llms import NUM_LAYERS, TINY_LLMS

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def _shallow(family: str, dtype: torch.dtype = torch.float32) -> ShallowLayers:
    return LlmSplit.of(TINY_LLMS[family]().to(dtype), NUM_LAYERS - 1).shallow


@pytest.mark.parametrize("family", TINY_LLMS)
def test_packed_layers_of_every_family_give_what_plain_ones_give(family):
    shallow = _shallow(family)
    input_ids, mask = sample_tokens(shallow.llm)
    with torch.inference_mode():
        plain = shallow(input_ids, mask)[mask.bool()]
        assert pack_linears(shallow, rows=64)
        packed = shallow(input_ids, mask)[mask.bool()]
    assert (packed - plain).norm(dim=1).max() <= 1e-5 * plain.norm(dim=1).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_linear_is_its_linear_but_for_rounding(dtype):
    if not can_pack(torch.zeros(1, dtype=dtype)):
        pytest.skip(f"this processor has no packed products in {dtype}")
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(48, 80, bias=bias).to(dtype).requires_grad_(False)
        hidden = torch.randn(5, 7, 48, dtype=dtype)
        torch.testing.assert_close(PackedLinear(linear, rows=64)(hidden), linear(hidden), rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(PackedLinear(linear, rows=1)(hidden[:0]), linear(hidden[:0]))


def test_an_architecture_that_reads_the_weight_of_a_layer_keeps_its_plain_layers():
    shallow = _shallow("bert")
    query = shallow.llm.encoder.layer[0].attention.self.query
    path = "encoder.layer.0.attention.self.query"
    shallow.llm.register_forward_pre_hook(lambda llm, _: _reads(llm.get_submodule(path).weight))
    assert not pack_linears(shallow, rows=64)
    assert shallow.llm.get_submodule(path) is query


def _reads(_weight: torch.Tensor) -> None:
    return None
