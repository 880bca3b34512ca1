"""`distributed`: values, order and gradients of the collectives, in one process and in two."""

import torch

from ssl_lightning.core import distributed
from tests.gloo import run_two


def test_everything_is_a_no_op_in_one_process() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x
    assert torch.equal(distributed.gather_rows(x), x)
    assert not distributed.gather_rows(x).requires_grad
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_main()
    assert not distributed.is_active()
    assert distributed.broadcast_object({"a": 1}) == {"a": 1}
    distributed.barrier()


def _two_ranks(rank: int, world_size: int) -> dict[str, object]:
    x = torch.full((2, 3), rank + 1.0, dtype=torch.float64, requires_grad=True)
    everyone = distributed.gather(x)  # (4, 3)
    # Rank r weighs row i by (r + 1) * (i + 1): what reaches a row is the sum over ranks, (1 + 2) * (i + 1).
    weight = (rank + 1) * torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    (everyone * weight).sum().backward()
    distributed.barrier()
    uneven = torch.arange(3 * (1 - rank)) + 10 * rank  # 3 rows on rank 0, none on rank 1
    return {
        "who": [distributed.rank(), distributed.world_size(), int(distributed.is_main())],
        "gathered": everyone.detach(),
        "grad": x.grad,
        "uneven": distributed.gather_rows(uneven),
        "rows": distributed.gather_rows(torch.full((1 + rank, 2), float(rank))),
        "nobody": distributed.gather_rows(torch.empty(0, 2)),
        "flags": distributed.gather_rows(torch.tensor([rank == 1])),
        "object": distributed.broadcast_object({"from": rank}),
    }


def test_two_ranks() -> None:
    for rank, seen in enumerate(run_two(_two_ranks)):
        assert seen["who"] == [rank, 2, int(rank == 0)]
        assert torch.equal(seen["gathered"], torch.tensor([1.0, 1, 2, 2], dtype=torch.float64)[:, None].expand(4, 3))
        own_rows = torch.arange(1.0, 5.0, dtype=torch.float64)[2 * rank : 2 * rank + 2]
        assert torch.equal(seen["grad"], 3 * own_rows[:, None].expand(2, 3))
        assert seen["uneven"].tolist() == [0, 1, 2]
        assert seen["rows"].tolist() == [[0, 0], [1, 1], [1, 1]]
        assert seen["nobody"].shape == (0, 2)
        assert seen["flags"].tolist() == [False, True]
        assert seen["object"] == {"from": 0}
