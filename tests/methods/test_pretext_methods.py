"""The steps of colourisation and predictive coding against the papers, by hand."""

import pytest
import timm
import torch
from torch import Tensor, nn

from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.cpc import CPCLoss
from ssl_lightning.losses.masked_pixels import MaskedPixelLoss
from ssl_lightning.methods.colorization import Colorization
from ssl_lightning.methods.cpc import CPC
from ssl_lightning.methods.simmim import SimMIM
from ssl_lightning.models.context import RowContext
from ssl_lightning.models.maps import feature_map
from ssl_lightning.models.vit import ViT
from ssl_lightning.parts.lab import rgb_to_lab
from tests.losses import reference_masked as paper
from tests.methods.harness import SmoothBackbone, random_batch, step, tiny_method


def test_colorization_step_equals_the_paper() -> None:
    """Two steps, so that the weights of the second one know the colours of the first."""
    method = tiny_method("colorization")
    seen = torch.zeros_like(method.bins.seen)
    for seed in range(2):
        batch = random_batch(3, seed=seed)
        rgb = (0.5 + 0.25 * batch.views[0]).clamp(0, 1)  # `shapes` has mean 0.5 and deviation 0.25
        lab = rgb_to_lab(rgb)
        bright = (lab[:, 0] + 16) / 116
        y = torch.where(bright > 6 / 29, bright**3, 3 * (6 / 29) ** 2 * (bright - 4 / 29))
        grey = torch.where(y > 0.0031308, 1.055 * y.clamp_min(1e-12) ** (1 / 2.4) - 0.055, 12.92 * y)
        shown = ((grey - 0.5) / 0.25)[:, None].expand(-1, 3, -1, -1)
        scores = method.head(method.backbone.forward_features(shown))  # (B, 4 Q, 2, 2), each place four pixels
        rows, codes = [], []
        for image in range(3):
            for i in range(4):
                for j in range(4):
                    place = scores[image, :, i // 2, j // 2].view(-1, 2, 2)[:, i % 2, j % 2]
                    rows.append(place)
                    codes.append(paper.soft_encode(lab[image, 1:, i, j], method.bins.centers))
        seen = seen + torch.stack(codes).sum(0)
        prior, centers = seen / seen.sum(), method.bins.centers
        smooth = torch.zeros_like(prior)
        for source, share in zip(centers, prior, strict=True):
            kernel = (-(centers - source).square().sum(1) / 50).exp()
            smooth += share * kernel / kernel.sum()
        weights = paper.ab_rebalancing(smooth, 0.5)
        terms = [
            -weights[code.argmax()] * (code * (row - row.exp().sum().log())).sum()
            for row, code in zip(rows, codes, strict=True)
        ]
        # sRGB's rounded matrix gives equal channels to 1e-5 and no closer
        torch.testing.assert_close(step(method, batch, seed)["loss"], torch.stack(terms).mean(), atol=1e-4, rtol=0)


def test_the_network_sees_no_colour() -> None:
    method, batch = tiny_method("colorization"), random_batch(3)
    grey, _ = method.grey(batch.views[0])
    torch.testing.assert_close(grey[:, 0], grey[:, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-4, rtol=0)


def test_colours_can_be_regressed() -> None:
    method = Colorization(SmoothBackbone(), nn.MSELoss(), (0.5,) * 3, (0.25,) * 3, None, 2).double()
    batch = random_batch(3)
    grey, lab = method.grey(batch.views[0])
    _, scores = method.predict(grey)
    assert scores.shape == (3, 2, 4, 4)
    expected = (scores - lab[:, 1:] / 110).square().mean()
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)
    image, shown, coloured = method.pictures(batch)["colorization"]
    assert image.shape == shown.shape == coloured.shape
    with pytest.raises(UserError, match="does not take scores, targets"):
        Colorization(SmoothBackbone(), tiny_method("colorization").loss, (0.5,) * 3, (0.25,) * 3)


def test_a_right_prediction_gives_the_image_back() -> None:
    """Regressed at full size, with the true colours for scores: the picture is the image."""
    method = Colorization(SmoothBackbone(), nn.MSELoss(), (0.5,) * 3, (0.25,) * 3, None, 2).double()
    batch = random_batch(3)
    batch = batch._replace(views=[view.clamp(-2, 2) for view in batch.views])
    _, lab = method.grey(batch.views[0])
    method.predict = lambda grey: (grey, lab[:, 1:] / 110)
    image, _, coloured = method.pictures(batch)["colorization"]
    torch.testing.assert_close(coloured, image, atol=1e-3, rtol=0)


def test_cpc_step_equals_the_paper() -> None:
    method, batch = tiny_method("cpc"), random_batch(3, image_size=8)
    kept = (3 * uniform(method.seed, 0, batch.indices, METHOD_STREAM, 9)).long().view(3, 3, 3)  # of three channels
    rows = []
    for b, image in enumerate(batch.views[0]):
        for i in range(3):
            for j in range(3):
                tile = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
                channel = kept[b, i, j]
                tile[0, channel] = image[channel, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
                rows.append(method.backbone(tile)[0])
    assert set(kept.flatten().tolist()) == {0, 1, 2}
    z = torch.stack(rows).view(3, 3, 3, 6)
    context = method.context(z.permute(0, 3, 1, 2))
    losses = []
    for k in (1, 2):
        places = [(b, i, j) for b in range(3) for i in range(3 - k) for j in range(3)]
        predictions = torch.stack([method.predictors[k - 1](context[b, :, i, j]) for b, i, j in places])
        targets = torch.stack([z[b, i + k, j] for b, i, j in places])
        losses.append(paper.cpc_info_nce(predictions, targets))
    expected = (losses[0] + losses[1]) / 2
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)


def test_cpc_can_keep_its_colours() -> None:
    batch = random_batch(3, image_size=8)
    x = batch.views[0]
    method = CPC(SmoothBackbone(), RowContext, CPCLoss(), tile_size=4, stride=2, drop_colors=False)
    tiles = method.tiles(batch)
    torch.testing.assert_close(tiles[1, 2, 0], x[1, :, 4:8, 0:4], atol=0, rtol=0)


def test_cpc_names_what_does_not_fit() -> None:
    parts = {"context": RowContext, "loss": CPCLoss()}
    CPC(SmoothBackbone(), **parts, tile_size=8, stride=4).check_views([32])
    with pytest.raises(UserError, match="have 3 rows of tiles, too few to predict 4 rows"):
        CPC(SmoothBackbone(), **parts, tile_size=16, stride=8).check_views([32])
    with pytest.raises(UserError, match="do not divide tiles of 6 px"):
        CPC(ViT(32, 4, 8, 1, 2), **parts, tile_size=6, stride=4).check_views([32])
    with pytest.raises(UserError, match=r"offsets=\[3, 2\]"):
        CPC(SmoothBackbone(), **parts, offsets=(3, 2))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18"])
def test_maps_of_timms_networks_have_channels_first(name: str) -> None:
    """Swin's own have them last."""
    size = {"img_size": 64, "window_size": 4, "depths": (1, 1), "embed_dim": 8, "num_heads": (2, 2)}
    net = timm.create_model(name, num_classes=0, **(size if name.startswith("swin") else {})).eval()
    net.out_dim = net.num_features
    x = torch.randn(2, 3, 64, 64)
    features, found = feature_map(net, x)
    assert found.shape[1] == net.num_features
    torch.testing.assert_close(features, net(x), atol=1e-5, rtol=1e-5)
    Colorization(net, nn.MSELoss(), (0.5,) * 3, (0.25,) * 3).check_views([64])
    method = SimMIM(net, MaskedPixelLoss(False, "absolute"), 64, 32, 0.5, stride=64 // found.shape[-1])
    method.check_views([64])
    step(method, random_batch(3, 1, 64)._replace(views=[x[:2]], indices=torch.arange(2)))["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_networks_with_layers_behind_the_map_are_refused() -> None:
    """They would get no gradient, which DDP takes amiss."""
    net = timm.create_model("convnext_atto", num_classes=0)
    net.out_dim = net.num_features
    with pytest.raises(UserError, match="not the mean of its map"):
        Colorization(net, nn.MSELoss(), (0.5,) * 3, (0.25,) * 3).check_views([64])


def gradient_of(method: CPC, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    method.training_step(random_batch(len(x))._replace(views=[x]), 0)["loss"].backward()
    assert x.grad is not None
    return x.grad


def test_cpc_learns_through_both_sides() -> None:
    """No stop-gradient: the first row, which is only context, and the last, which is only a target, both move."""
    method = tiny_method("cpc")
    gradient = gradient_of(method, random_batch(3, image_size=8).views[0])
    assert gradient[:, :, :2].any()
    assert gradient[:, :, 6:].any()
