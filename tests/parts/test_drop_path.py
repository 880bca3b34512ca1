"""Stochastic depth: a loop over items, its draws, and the networks that have it."""

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.timm import timm_backbone
from ssl_lightning.models.vit import ViT
from ssl_lightning.parts.drop_path import DropPath, give_drop_path, tell


def test_each_item_keeps_its_path_or_loses_it() -> None:
    path, indices = DropPath(0.3, place=4).double(), torch.arange(200)
    x = torch.randn(200, 3, 2, dtype=torch.float64, requires_grad=True)
    path.drawn_by = 7, 2, indices
    out = path(x)
    wanted = torch.zeros_like(x)
    for i in range(200):
        if float(uniform(7, 2, indices[i : i + 1], METHOD_STREAM + 1 + 4, 1)) >= 0.3:
            wanted[i] = x[i].detach() / 0.7
    torch.testing.assert_close(out, wanted, rtol=1e-14, atol=0)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, (wanted != 0).double() / 0.7, rtol=1e-14, atol=0)
    assert 30 < int((wanted[:, 0, 0] == 0).sum()) < 90
    path.eval()
    assert torch.equal(path(x), x)


def small_vit() -> ViT:
    torch.manual_seed(0)
    return ViT(image_size=8, patch_size=4, dim=8, depth=3, heads=2)


def rates(network: nn.Module) -> list[float]:
    return [module.rate for module in network.modules() if isinstance(module, DropPath)]


def test_the_rate_rises_from_block_to_block_and_weights_keep_their_names() -> None:
    network = small_vit()
    names = list(network.state_dict())
    give_drop_path(network, 0.4)
    assert rates(network) == [0.2, 0.2, 0.4, 0.4]  # attention and MLP; the first block has none
    assert list(network.state_dict()) == names
    give_drop_path(network, 0.2)  # of a network that has some already
    assert rates(network) == [0.1, 0.1, 0.2, 0.2]
    places = [module.place for module in network.modules() if isinstance(module, DropPath)]
    assert len(set(places)) == 4


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_networks_of_timm(name: str) -> None:
    sizes = {"image_size": 32} if "vit" in name else {}
    network = timm_backbone(name, **sizes).train()
    give_drop_path(network, 0.5)
    assert max(rates(network)) == 0.5
    x = torch.randn(16, 3, 32, 32)
    tell(network, 0, 0, torch.arange(16))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:  # or every item would depend on every other
        norm.eval()
        nn.init.ones_(norm.weight)  # timm's residual branches begin with 0
    dropped, again = network(x), network(x)
    whole = network.eval()(x)
    assert torch.equal(dropped, again)
    assert not torch.allclose(dropped, whole, atol=1e-6)


def test_an_item_loses_the_same_paths_in_any_batch() -> None:
    network = small_vit().double().train()
    give_drop_path(network, 0.5)
    x = torch.randn(12, 3, 8, 8, dtype=torch.float64)
    indices = torch.arange(12) * 3

    def seen(rows: Tensor, epoch: int = 1) -> Tensor:
        tell(network, 4, epoch, indices[rows])
        return network(x[rows])

    whole = seen(torch.arange(12))
    for half in (torch.arange(0, 12, 2), torch.arange(1, 12, 2)):
        torch.testing.assert_close(seen(half), whole[half], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(seen(torch.arange(12), epoch=2), whole)


def test_a_network_without_residual_paths_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="ConvNetSmall has no residual paths that can be dropped") as refused:
        give_drop_path(ConvNetSmall(4), 0.1)
    assert "\n" not in str(refused.value)


def test_a_batch_that_a_network_folds_is_refused() -> None:
    path = DropPath(0.3, 0)
    path.drawn_by = 0, 0, torch.arange(4)
    with pytest.raises(UserError, match="folds its batch"):
        path(torch.zeros(8, 2))
