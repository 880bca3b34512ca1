"""The steps of the masked and self-distilling methods against the papers, and what they must not see."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import weight_norm

from ssl_lightning.cli import run as build
from ssl_lightning.core.counter import METHOD_STREAM, uniform
from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.masked_pixels import MaskedPixelLoss
from ssl_lightning.methods.dino import DINO
from ssl_lightning.methods.mae import MAE
from ssl_lightning.methods.simmim import SimMIM
from ssl_lightning.methods.tiles import Tiles
from ssl_lightning.models.decoder import MAEDecoder
from ssl_lightning.models.heads import DINOHead
from ssl_lightning.models.vit import ViT
from ssl_lightning.parts.masking import patchify, random_places
from ssl_lightning.runs.checkpoint import load_weights
from tests.losses import reference_masked as paper
from tests.methods.harness import SmoothBackbone, at, batch_for, random_batch, step, tiny_method
from tests.methods.test_joint_methods import with_local_views


@pytest.mark.parametrize("epoch", [0, 1])
def test_mae_step_equals_the_paper(epoch: int) -> None:
    """The decoder by hand: narrowed visible tokens in their places, mask tokens in all others, positions on all."""
    method, batch = at(tiny_method("mae"), epoch), random_batch(5)
    assert isinstance(method, MAE)
    x, vit, decoder = batch.views[0], method.backbone, method.decoder
    visible, mask = random_places(uniform(0, epoch, batch.indices, METHOD_STREAM, 16), method.hidden)
    assert method.hidden == 12
    predictions = []
    for row in range(5):
        tokens = decoder.narrow(vit.tokens(x[row : row + 1], visible[row : row + 1])[0])
        rows = [tokens[0]]
        for place in range(16):
            known = (visible[row] == place).nonzero().flatten().tolist()
            rows.append((tokens[1 + known[0]] if known else decoder.mask_token) + decoder.positions[place])
        predictions.append(decoder.pixels(decoder.norm(decoder.blocks(torch.stack(rows)[None])))[0, 1:])
    patches = torch.stack([torch.stack(paper.patches_of(image, 1)) for image in x])
    expected = paper.masked_pixels(torch.stack(predictions), patches, mask, norm_target=True, error="squared")
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)


def test_maes_encoder_never_sees_a_hidden_patch() -> None:
    method, batch = tiny_method("mae"), random_batch(5)
    _, mask = random_places(uniform(0, 0, batch.indices, METHOD_STREAM, 16), method.hidden)
    x = batch.views[0].clone().requires_grad_()
    output = method.backbone.tokens(x, random_places(uniform(0, 0, batch.indices, METHOD_STREAM, 16), method.hidden)[0])
    output.square().sum().backward()
    gradient = patchify(x.grad, 1).abs().sum(-1)  # (B, N)
    assert not gradient[mask].any()
    assert gradient[~mask].all()


def test_masks_change_with_image_and_epoch_and_with_nothing_else() -> None:
    """Whatever the batch and the rank: the mask belongs to the image."""
    indices = torch.arange(6)
    first, again = (random_places(uniform(0, 0, indices, METHOD_STREAM, 16), 12)[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first[2:4], random_places(uniform(0, 0, indices[2:4], METHOD_STREAM, 16), 12)[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, random_places(uniform(0, 1, indices, METHOD_STREAM, 16), 12)[1])


def test_mae_shows_the_image_the_mask_and_the_filling() -> None:
    method, batch = tiny_method("mae"), random_batch(5)
    image, seen, filled = method.pictures(batch)["reconstruction"]
    hidden = (seen == 0) & (image != 0)
    assert hidden.double().mean() == 0.75
    assert torch.equal(image[~hidden], filled[~hidden])
    assert not torch.equal(image[hidden], filled[hidden])


@pytest.mark.parametrize(("epoch", "temperature"), [(0, 0.02), (1, 0.03), (4, 0.06), (9, 0.06)])
def test_dino_step_equals_the_paper(epoch: int, temperature: float) -> None:
    """Two steps, so that the second one's targets are centred by the first one's scores."""
    method = at(tiny_method("dino"), epoch)
    assert isinstance(method, DINO)
    method.temperatures = (0.02, 0.06, 4)
    for parameter in method.teacher.parameters():  # no longer the student
        parameter.data += 0.1 * torch.randn_like(parameter)
    center = torch.zeros(5, dtype=torch.float64)
    for seed in range(2):
        batch = with_local_views(random_batch(6, seed=seed))
        answers = [method.teacher(x) for x in batch.global_views]
        scores = [method.projector(method.backbone(x)) for x in batch.views]
        targets = [paper.dino_target(t, center, temperature) for t in answers]
        expected = paper.dino(scores, targets, 0.1)
        center = paper.dino_center(center, torch.cat(answers), 0.9)
        torch.testing.assert_close(step(method, batch, seed)["loss"], expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(method.center.value, center, atol=1e-12, rtol=0)


def test_dino_is_judged_by_its_teacher() -> None:
    method, x = tiny_method("dino"), random_batch(3).views[0]
    for parameter in method.teacher.parameters():
        parameter.data += 0.1
    assert torch.equal(method.embed(x), method.teacher.networks[0](x))
    assert not torch.equal(method.embed(x), method.backbone(x))
    saved: dict[str, str] = {}
    method.on_save_checkpoint(saved)
    assert saved["judged_by"] == "teacher.networks.0"


def test_dinos_head_scores_unit_vectors_by_unit_prototypes() -> None:
    head, x = DINOHead(6, 8, 4, 10).double(), torch.randn(5, 6, dtype=torch.float64)
    prototypes = head.prototypes / head.prototypes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), normalize(head.mlp(x), dim=1) @ prototypes.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(head.project(x).norm(dim=1), torch.ones(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_dinos_head_with_a_learned_scale_is_torchs_weight_norm() -> None:
    head, x = DINOHead(6, 8, 4, 10, learned_scale=True).double(), torch.randn(5, 6, dtype=torch.float64)
    head.scale.data.uniform_(0.5, 2)
    last = weight_norm(nn.Linear(4, 10, bias=False).double())
    last.parametrizations.weight.original0.data[:] = head.scale.data[:, None]
    last.parametrizations.weight.original1.data[:] = head.prototypes.data
    weights = torch.randn(5, 10, dtype=torch.float64)
    (head(x) * weights).sum().backward()
    expected = last(normalize(head.mlp(x), dim=1))
    (expected * weights).sum().backward()
    same = partial(torch.testing.assert_close, atol=1e-12, rtol=0)
    same(head(x), expected)
    same(head.scale.grad, last.parametrizations.weight.original0.grad[:, 0])
    same(head.prototypes.grad, last.parametrizations.weight.original1.grad)


def cross_entropy(scores: torch.Tensor, labels: list[int]) -> torch.Tensor:
    terms = [row.exp().sum().log() - row[label] for row, label in zip(scores, labels, strict=True)]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("epoch", [0, 1])
def test_simmim_step_equals_the_paper(epoch: int) -> None:
    """Hidden are whole squares of 2 x 2 patches; the token stands in their place and a single layer predicts."""
    method, batch = at(tiny_method("simmim"), epoch), random_batch(5)
    x, vit = batch.views[0], method.backbone
    mask = method.mask(batch)
    squares = mask.view(5, 2, 2, 2, 2)
    assert (squares == squares[:, :, :1, :, :1]).all()
    assert (mask.sum(1) == 12).all()  # 0.6 of four squares, rounded up, as hidden_count does
    embedded = vit.patch_embed(x).flatten(1, 2)
    embedded = torch.stack([torch.where(m[:, None], method.mask_token, row) for row, m in zip(embedded, mask)])
    tokens = torch.cat([vit.cls_token.expand(5, -1, -1), embedded], 1) + vit.pos_embed
    prediction = method.head(vit.norm(vit.blocks(tokens))[:, 1:])
    patches = torch.stack([torch.stack(paper.patches_of(image, 1)) for image in x])
    expected = paper.masked_pixels(prediction, patches, mask, norm_target=False, error="absolute")
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)


def test_simmim_hides_pixels_from_a_convolutional_network() -> None:
    method = SimMIM(SmoothBackbone(), MaskedPixelLoss(False, "absolute"), 8, 4, 0.5, stride=2).double()
    batch = random_batch(3, image_size=8)
    behind = method.mask(batch).view(3, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = batch.views[0].clone().requires_grad_()
    features, prediction = method.predict(x, method.mask(batch))
    assert prediction.shape == (3, 16, 12)
    features.square().sum().backward()
    assert not (x.grad * behind).any()
    assert x.grad.any()
    with pytest.raises(UserError, match="mask_size=5"):
        SimMIM(SmoothBackbone(), MaskedPixelLoss(), 8, 5, stride=2)


def test_rotation_step_equals_the_paper() -> None:
    method, batch = tiny_method("rotation"), random_batch(3)
    rows, labels = [], []
    for turns in range(4):
        for image in batch.views[0]:
            turned = torch.stack([channel.clone() for channel in image])
            for _ in range(turns):  # a quarter turn to the left: the last column becomes the first row
                turned = torch.stack([turned[:, :, column] for column in reversed(range(4))], 1)
            rows.append(method.head(method.backbone(turned[None]))[0])
            labels.append(turns)
    torch.testing.assert_close(
        step(method, batch)["loss"], cross_entropy(torch.stack(rows), labels), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("epoch", [0, 1])
def test_jigsaw_step_equals_the_paper(epoch: int) -> None:
    """The tiles are put in their order first, and each passes the network by itself."""
    method, batch = at(tiny_method("jigsaw"), epoch), batch_for("jigsaw", 4)
    tiles, chosen = method.puzzle(batch)
    rows = []
    for image, k in zip(tiles, chosen.tolist(), strict=True):
        shown = [image[tile] for tile in method.permutations[k].tolist()]
        rows.append(method.projector(torch.cat([method.backbone(tile[None])[0] for tile in shown])[None])[0])
    expected = cross_entropy(torch.stack(rows), chosen.tolist())
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)


def test_a_solved_jigsaw_shows_the_tiles_in_order() -> None:
    method, batch = tiny_method("jigsaw"), batch_for("jigsaw", 4)
    tiles, chosen = method.puzzle(batch, epoch=0)
    right = 50.0 * torch.nn.functional.one_hot(chosen, len(method.permutations)).double()
    method.solve = lambda tiles, chosen: (tiles, right)
    image, puzzle, solved = method.pictures(batch)["jigsaw"]
    assert torch.equal(image, batch.views[0])
    for row in range(4):
        for place in range(9):
            top, left = 3 * (place // 3), 3 * (place % 3)
            window = (row, slice(None), slice(top, top + 3), slice(left, left + 3))
            assert torch.equal(solved[window], tiles[row, place])
            assert torch.equal(puzzle[window], tiles[row, method.permutations[chosen[row], place]])


@pytest.mark.parametrize("epoch", [0, 1])
def test_relative_position_step_equals_the_paper(epoch: int) -> None:
    method, batch = at(tiny_method("relative_position"), epoch), batch_for("relative_position", 6)
    tiles, numbers = method.tiles.cut(batch.views[0], uniform(0, epoch, batch.indices, METHOD_STREAM, 28))
    assert ((tiles != 0).any(4).any(3).sum(2) == 1).all()  # each shows one channel
    around = [0, 1, 2, 3, 5, 6, 7, 8]  # places of the grid without the middle
    rows, labels = [], []
    for image, number in zip(tiles, numbers.tolist(), strict=True):
        labels.append(int(number * 8))
        pair = [method.backbone(image[place][None])[0] for place in (4, around[labels[-1]])]
        rows.append(method.projector(torch.cat(pair)[None])[0])
    torch.testing.assert_close(
        step(method, batch)["loss"], cross_entropy(torch.stack(rows), labels), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("epoch", [0, 1])
def test_ijepa_step_equals_the_paper(epoch: int) -> None:
    """Each block by itself: its predictions from the context alone, its targets from a teacher that saw everything."""
    method, batch = at(tiny_method("ijepa"), epoch, 7), random_batch(5)
    for parameter in method.teacher.parameters():  # no longer the student
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, predictor, teacher = batch.views[0], method.predictor, method.teacher.networks[0]
    visible, places = method.blocks(batch, 7)
    predictions, targets = [], []
    for block in range(2):
        said, meant = [], []
        for row in range(5):
            context = method.backbone.tokens(x[row : row + 1], visible[row : row + 1])[0, 1:]
            known = predictor.narrow(context) + predictor.positions[visible[row]]
            asked = [predictor.mask_token + predictor.positions[place] for place in places[row, block]]
            out = predictor.norm(predictor.blocks(torch.cat([known, torch.stack(asked)])[None]))[0, len(known) :]
            said.append(predictor.widen(out))
            tokens = teacher.tokens(x[row : row + 1])[0, 1:].detach()
            whole = [(token - token.mean()) / (token.var(unbiased=False) + 1e-5).sqrt() for token in tokens]
            meant.append(torch.stack([whole[place] for place in places[row, block].tolist()]))
        predictions.append(torch.stack(said))
        targets.append(torch.stack(meant))
    expected = paper.ijepa(predictions, targets)
    torch.testing.assert_close(step(method, batch)["loss"], expected, atol=1e-10, rtol=0)


def test_ijepas_context_holds_no_target_and_its_blocks_go_with_the_image() -> None:
    method = tiny_method("ijepa")
    seen = set()
    for n in range(20):
        batch = random_batch(6)
        visible, places = method.blocks(batch, n)
        assert visible.shape[1] >= 1
        for row in range(6):
            assert not set(visible[row].tolist()) & set(places[row].flatten().tolist())
        alone = method.blocks(batch._replace(indices=batch.indices[2:4]), n)[1]
        assert torch.equal(alone, places[2:4])
        seen.add(places.shape[2])
    assert len(seen) > 1  # the size of the targets changes from step to step


def test_ijepa_leaves_something_to_see() -> None:
    method = tiny_method("ijepa", targets=4)  # four blocks of 2 x 2 could hide the whole 4 x 4 grid
    for n in range(20):
        visible, places = method.blocks(random_batch(6), n)
        assert places.shape[2] < 4
        assert not any(set(v.tolist()) & set(p.flatten().tolist()) for v, p in zip(visible, places, strict=True))
    with pytest.raises(UserError, match="16 targets on a grid of 4 x 4 leave nothing to see"):
        tiny_method("ijepa", targets=16)


@pytest.mark.parametrize("name", ["mae", "simmim", "ijepa"])
def test_views_of_another_size_than_the_networks_are_refused(name: str) -> None:
    method = tiny_method(name)
    method.check_views([4])
    with pytest.raises(UserError, match="views of 8 px for a ViT of 4 px"):
        method.check_views([8])


def test_masks_that_hide_everything_are_refused() -> None:
    with pytest.raises(UserError, match="squares of 4 px hide the whole image of 4 px"):
        tiny_method("simmim", mask_size=4, image_size=4)
    with pytest.raises(UserError, match="patches smaller than the image"):
        MAE(ViT(4, 4, 8, 1, 2), MAEDecoder, MaskedPixelLoss())


def test_simmim_names_the_stride_that_does_not_fit() -> None:
    method = SimMIM(SmoothBackbone(), MaskedPixelLoss(False, "absolute"), 8, 4, 0.5, stride=4)
    with pytest.raises(UserError, match="at a stride of 4; set"):
        method.check_views([8])
    SimMIM(SmoothBackbone(), MaskedPixelLoss(False, "absolute"), 8, 4, 0.5, stride=2).check_views([8])


@pytest.mark.parametrize("backbone", ["convnet_small", "vit_tiny"])
def test_simmim_is_started_on_either_kind_of_network(backbone: str) -> None:
    build.check(build.compose(["method=simmim", f"backbone={backbone}"]))


def test_tiles_that_do_not_fit_are_refused() -> None:
    Tiles(4).check(12, ViT(12, 2, 8, 1, 2))
    for size in (1, 5):
        with pytest.raises(UserError, match=f"tiles of {size} px do not fit the cells of 4 px"):
            tiny_method("jigsaw", tile_size=size).check_views([12])
    for fixed in ("vit_tiny_patch16_224", "mixer_s16_224"):
        with pytest.raises(UserError, match="does not take tiles of 16 px"):
            Tiles(16).check(48, timm.create_model(fixed, img_size=48, num_classes=0))
    with pytest.raises(UserError, match="patches of 4 px do not divide tiles of 6 px"):
        Tiles(6).check(24, ViT(24, 4, 8, 1, 2))


def test_views_that_patches_do_not_divide_are_refused() -> None:
    method = tiny_method("dino")
    method.backbone = ViT(16, 4, 8, 1, 2)
    method.check_views([16, 16, 8])
    with pytest.raises(UserError, match="patches of 4 px do not divide views of 14 px"):
        method.check_views([16, 16, 14])


def test_a_checkpoint_of_dino_gives_its_teacher(tmp_path: Path) -> None:
    """The last checkpoint of a run still going is judged by what the finished run exports."""
    method = tiny_method("dino").float()
    for parameter in method.teacher.parameters():
        parameter.data += 0.1
    content = {"state_dict": method.state_dict(), "pytorch-lightning_version": "2.6"}
    method.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    found = SmoothBackbone()
    load_weights(found, tmp_path / "last.ckpt")
    x = random_batch(3).views[0].float()
    assert torch.equal(found(x), method.embed(x))


@pytest.mark.parametrize("name", ["mae", "simmim", "jigsaw"])
def test_pictures_hide_the_same_in_every_epoch(name: str) -> None:
    method, batch = tiny_method(name), batch_for(name, 4)
    (first,), (later,) = (at(method, epoch).pictures(batch).values() for epoch in (0, 1))
    assert all(map(torch.equal, first, later))
