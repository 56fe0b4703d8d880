"""Row-wise Adagrad against its definition, written out row by row."""

import torch

from bahe_tasks.core.row_wise_adagrad import RowWiseAdagrad


def test_each_row_divides_by_the_root_of_its_own_mean_squares_and_a_typical_one():
    table = torch.nn.Embedding(4, 3, sparse=True)
    expected = table.weight.detach().clone()
    sums, of_all = [0.0] * 4, []
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    factors = torch.tensor([[1.0, 2.0, -3.0], [0.5, 0.0, 1.0]])
    for rows in ([0, 2, 2], [2, 3]):
        optimizer.zero_grad()
        (table(torch.tensor(rows)) * factors[0 if len(rows) == 3 else 1]).sum().backward()
        optimizer.step()
        gradients = {row: rows.count(row) * factors[0 if len(rows) == 3 else 1] for row in set(rows)}
        of_all += [float((gradient**2).mean()) for gradient in gradients.values()]
        for row, gradient in gradients.items():
            sums[row] += float((gradient**2).mean())
            expected[row] -= 0.5 * gradient / ((sums[row] + sum(of_all) / len(of_all)) / 2) ** 0.5
    torch.testing.assert_close(table.weight.detach(), expected)
    assert not optimizer.state[table.weight]["sum"][1]


def test_a_row_whose_gradient_is_zero_stays():
    table = torch.nn.Embedding(2, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    (table(torch.tensor([1])) * 0).sum().backward()
    optimizer.step()
    assert torch.equal(table.weight.detach(), before)


def test_the_first_step_of_a_row_is_as_long_as_its_gradient_is_large_beside_the_others():
    table = torch.nn.Embedding(3, 1, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    (table(torch.tensor([0, 1, 2])).squeeze(1) * torch.tensor([1.0, 1.0, 0.01])).sum().backward()
    optimizer.step()
    typical, ordinary, small = (1 + 1 + 0.01**2) / 3, 0.5, 0.5 * 0.01
    moved = (before - table.weight.detach()).squeeze(1).tolist()
    assert moved[0] == moved[1]
    torch.testing.assert_close(moved[0], ordinary / ((1 + typical) / 2) ** 0.5, rtol=1e-5, atol=0)
    torch.testing.assert_close(moved[2], small / ((0.01**2 + typical) / 2) ** 0.5, rtol=1e-3, atol=0)


def test_what_is_typical_is_kept_with_the_state():
    """Of a state written before it was, the sums alone are there."""
    table = torch.nn.Embedding(2, 1, sparse=True)
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    optimizer.state[table.weight]["sum"] = torch.tensor([[4.0], [0.0]])
    for _ in range(2):
        optimizer.zero_grad()
        table(torch.tensor([0])).sum().backward()
        optimizer.step()
    assert optimizer.state[table.weight]["of_all"].tolist() == [2.0, 2.0]
    assert optimizer.state[table.weight]["sum"].tolist() == [[6.0], [0.0]]
