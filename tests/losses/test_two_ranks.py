"""Every loss on two ranks equals the loss on one, in value and gradient; and the usual mistakes would be seen.

Each rank embeds its half of the batch with a shared linear layer; loss and gradients are averaged over ranks, as DDP
does.
"""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.core import distributed
from ssl_lightning.losses import nt_xent
from ssl_lightning.losses.barlow_twins import BarlowTwinsLoss
from ssl_lightning.losses.byol import BYOLLoss
from ssl_lightning.losses.cpc import NEGATIVES, CPCLoss
from ssl_lightning.losses.dcl import DCL
from ssl_lightning.losses.hard_negative import HardNegative
from ssl_lightning.losses.info_nce import InfoNCE
from ssl_lightning.losses.nt_xent import NTXent
from ssl_lightning.losses.ressl import ReSSLLoss
from ssl_lightning.losses.sig_reg import SIGReg
from ssl_lightning.losses.sup_con import SupConLoss
from ssl_lightning.losses.swav import SwAVLoss
from ssl_lightning.losses.tico import TiCoLoss
from ssl_lightning.losses.vicreg import VICRegLoss
from ssl_lightning.losses.w_mse import WMSELoss
from ssl_lightning.parts.sinkhorn import sinkhorn
from tests.gloo import run_two

Loss = Callable[[Tensor, Tensor], Tensor]
QUEUE = torch.eye(5)[:3]


def joint() -> dict[str, Loss]:
    """The joint-embedding methods' losses, on rows of 5 numbers; W-MSE whitens slices that span the ranks."""
    directions = normalize(torch.arange(15.0, dtype=torch.float64).view(5, 3).cos(), dim=0)
    found: dict[str, Loss] = {
        "barlow_twins": BarlowTwinsLoss(),
        "vicreg": VICRegLoss(),
        "w_mse": WMSELoss(8),
        "sig_reg": lambda z1, z2: SIGReg()(z1, directions) + SIGReg()(z2, directions),
        "tico": lambda z1, z2: TiCoLoss()(z1, z2, torch.eye(5))[0],
        "ressl": lambda z1, z2: ReSSLLoss()(z1, z2, QUEUE),
        "sup_con": lambda z1, z2: SupConLoss()(z1, z2, (z1[:, 0].detach() > 0).long()),
        "sup_con in": lambda z1, z2: SupConLoss(0.1, "in")(z1, z2, (z1[:, 0].detach() > 0).long()),
        "swav": lambda z1, z2: SwAVLoss()([z1, z2], [sinkhorn(normalize(z)) for z in (z1, z2)]),
    }
    for name, loss in (("dcl", DCL(0.2)), ("dclw", DCL(0.2, 0.5)), ("hard_negative", HardNegative())):
        found[name] = loss
        found[f"{name} queue"] = lambda q, k, loss=loss: loss(q, k, QUEUE)
        found[f"{name} keys"] = lambda q, k, loss=loss: loss(q, k, None)
    return found


def losses() -> dict[str, Loss]:
    found: dict[str, Loss] = {"byol": BYOLLoss(), **joint()}
    for form in ("matrix", "streamed"):
        found[f"nt_xent {form}"] = NTXent(0.2, form)
        found[f"nt_xent {form} cold"] = NTXent(0.01, form)
        found[f"info_nce {form} queue"] = lambda q, k, form=form: InfoNCE(0.2, form)(q, k, QUEUE)
        found[f"info_nce {form}"] = lambda q, k, form=form: InfoNCE(0.2, form)(q, k, None)
        found[f"info_nce {form} one side"] = lambda q, k, form=form: InfoNCE(0.2, form)(q, k.detach(), None)
    for kind in NEGATIVES:  # two places an item
        cpc = CPCLoss(1.0, kind)
        found[f"cpc {kind}"] = lambda p, z, cpc=cpc: cpc(p.unflatten(0, (-1, 2)), z.unflatten(0, (-1, 2)))
    return found


def loss_and_gradients(loss: Loss, rank: int, world_size: int) -> list[Tensor]:
    """[loss, gradient of weight and bias], averaged over ranks."""
    torch.manual_seed(1)
    layer = nn.Linear(6, 5, dtype=torch.float64)
    x1, x2 = (torch.randn(8, 6, dtype=torch.float64).chunk(world_size)[rank] for _ in range(2))
    value = loss(layer(x1), layer(x2))
    results = [value.detach().clone(), *torch.autograd.grad(value, list(layer.parameters()))]
    for result in results if world_size > 1 else []:
        dist.all_reduce(result)
        result /= world_size
    return results


def lossy_gather(x: Tensor) -> Tensor:
    """The usual mistake: all_gather, then one's own rows put back, so that other ranks' losses give no gradient."""
    everyone = distributed.gather_rows(x)
    start = distributed.rank() * len(x)
    return torch.cat([everyone[:start], x, everyone[start + len(x) :]])


def _on_rank(rank: int, world_size: int) -> dict[str, list[Tensor]]:
    results = {name: loss_and_gradients(loss, rank, world_size) for name, loss in losses().items()}
    nt_xent.gather = lossy_gather
    results["gradient lost"] = loss_and_gradients(NTXent(0.2), rank, world_size)
    nt_xent.gather, nt_xent.rank, nt_xent.world_size = lambda x: x, lambda: 0, lambda: 1
    results["gather forgotten"] = loss_and_gradients(NTXent(0.2), rank, world_size)
    return results


@pytest.fixture(scope="module")
def two_ranks() -> list[dict[str, list[Tensor]]]:
    return run_two(_on_rank)


@pytest.mark.parametrize("name", list(losses()))
def test_two_ranks_equal_one_process(name: str, two_ranks: list[dict[str, list[Tensor]]]) -> None:
    expected = loss_and_gradients(losses()[name], 0, 1)
    for seen in two_ranks:
        torch.testing.assert_close(seen[name], expected, atol=1e-9, rtol=0)


def test_the_usual_mistakes_would_be_seen(two_ranks: list[dict[str, list[Tensor]]]) -> None:
    expected = loss_and_gradients(NTXent(0.2), 0, 1)
    forgotten, lost = two_ranks[0]["gather forgotten"], two_ranks[0]["gradient lost"]
    assert (forgotten[0] - expected[0]).abs() > 0.1  # fewer negatives: another loss
    assert (lost[0] - expected[0]).abs() < 1e-9  # the loss looks right, and only the gradient tells
    assert (lost[1] - expected[1]).abs().max() > 1e-3
