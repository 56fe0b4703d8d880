import torch

from bahe_tasks.core.target_attention import TargetAttention


def test_it_is_the_published_activation_unit_over_item_behavior_difference_and_product():
    """One linear map over [item, behavior, item − behavior, item ⊙ behavior], here with the difference's weights spread."""
    torch.manual_seed(0)
    attention = TargetAttention(4, 5)
    torch.nn.init.normal_(attention.weight.weight)
    item, behaviors = torch.randn(2, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    of_difference = torch.randn(5, 4)
    of_item, of_behavior = attention.of_item.weight - of_difference, attention.of_behavior.weight + of_difference
    weight = torch.cat([of_item, of_behavior, of_difference, attention.of_product.weight], 1)
    expected = torch.zeros(2, 4)
    for q in range(2):
        for s in range(3):
            if mask[q, s]:
                i, b = (v / v.square().mean().sqrt() for v in (item[q], behaviors[q, s]))
                hidden = weight @ torch.cat([i, b, i - b, i * b]) + attention.of_item.bias
                hidden = torch.where(hidden > 0, hidden, 0.25 * hidden)  # PReLU as torch initialises it
                expected[q] += (attention.weight.weight @ hidden + attention.weight.bias) * b / 50**0.5
    torch.testing.assert_close(attention(item, behaviors, mask), expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_attended_to_at_first_but_it_can_be_learned():
    attention = TargetAttention(4, 5)
    attended = attention(torch.randn(2, 4), torch.randn(2, 3, 4), torch.ones(2, 3))
    assert not attended.any()
    attended.sum().backward()
    assert attention.weight.weight.grad.any()


def test_what_stands_in_padding_does_not_count():
    torch.manual_seed(0)
    attention = TargetAttention(4, 5)
    torch.nn.init.normal_(attention.weight.weight)
    item, behaviors, mask = torch.randn(1, 4), torch.randn(1, 3, 4), torch.tensor([[1, 1, 0]])
    other = behaviors.clone()
    other[0, 2] = 1e3
    assert torch.equal(attention(item, behaviors, mask), attention(item, other, mask))


def test_the_scale_of_hidden_states_does_not_matter():
    torch.manual_seed(0)
    attention = TargetAttention(4, 5)
    torch.nn.init.normal_(attention.weight.weight)
    item, behaviors, mask = torch.randn(1, 4), torch.randn(1, 3, 4), torch.ones(1, 3)
    torch.testing.assert_close(attention(100 * item, 300 * behaviors, mask), attention(item, behaviors, mask))
