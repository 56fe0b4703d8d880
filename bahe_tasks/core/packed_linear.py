"""Frozen linear layers whose weights are laid out once for oneDNN's kernels on an x86 processor.

The same sums in the same dtype in another order, so results differ from `nn.Linear` by rounding alone. Unusual: torch
has the operators for its own compiler and gives them no public name. Where they are missing, or an architecture looks
into its linear layers, the layers stay as they are.
"""

from __future__ import annotations

import platform

import torch
from torch import nn

from bahe_tasks.core.llm_check import agree, sample_tokens
from bahe_tasks.core.llm_split import ShallowLayers


class PackedLinear(nn.Module):
    """x Wᵀ + b of a frozen `nn.Linear`: (…, in) → (…, out)."""

    def __init__(self, linear: nn.Linear, *, rows: int) -> None:
        """`rows` is about how many vectors come at a time: the layout is chosen for them."""
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self.bias = linear.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, "none", [], "")


@torch.inference_mode()
def pack_linears(shallow: ShallowLayers, *, rows: int) -> bool:
    """Replace the linear layers of the frozen `shallow` on a CPU by packed ones; return whether that was possible."""
    first = next(shallow.parameters(), None)
    if first is None or not can_pack(first):
        return False
    input_ids, mask = sample_tokens(shallow.llm)
    expected = shallow(input_ids, mask)[mask.bool()]
    linears = {path: m for path, m in shallow.llm.named_modules() if type(m) is nn.Linear}
    try:
        for path, linear in linears.items():
            shallow.llm.set_submodule(path, PackedLinear(linear, rows=rows))
        if agree(expected, shallow(input_ids, mask)[mask.bool()]):
            return True
    except (AttributeError, RuntimeError, TypeError):  # no such operator, or no `weight` where one is looked for
        pass
    for path, linear in linears.items():
        shallow.llm.set_submodule(path, linear)
    return False


def can_pack(weight: torch.Tensor) -> bool:
    """Tell whether this processor has packed products in the dtype of a weight."""
    if weight.device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
