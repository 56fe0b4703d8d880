"""Row-wise Adagrad against its definition, written out row by row."""

import torch

from bahe_tasks.core.row_wise_adagrad import RowWiseAdagrad


def test_each_row_divides_by_the_root_of_its_own_mean_squares():
    table = torch.nn.Embedding(4, 3, sparse=True)
    expected = table.weight.detach().clone()
    sums = [0.0] * 4
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    factors = torch.tensor([[1.0, 2.0, -3.0], [0.5, 0.0, 1.0]])
    for rows in ([0, 2, 2], [2, 3]):
        optimizer.zero_grad()
        (table(torch.tensor(rows)) * factors[0 if len(rows) == 3 else 1]).sum().backward()
        optimizer.step()
        for row in set(rows):
            gradient = rows.count(row) * factors[0 if len(rows) == 3 else 1]
            sums[row] += float((gradient**2).mean())
            expected[row] -= 0.5 * gradient / sums[row] ** 0.5
    torch.testing.assert_close(table.weight.detach(), expected)
    assert not optimizer.state[table.weight]["sum"][1]


def test_a_row_whose_gradient_is_zero_stays():
    table = torch.nn.Embedding(2, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowWiseAdagrad([table.weight], lr=0.5)
    (table(torch.tensor([1])) * 0).sum().backward()
    optimizer.step()
    assert torch.equal(table.weight.detach(), before)
