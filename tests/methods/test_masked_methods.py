"""The steps of the masked and self-distilling methods against the papers, and what they must not see."""

import torch
from torch.nn.functional import normalize

from ssl_lightning.data.counter import uniform
from ssl_lightning.methods.dino import DINO
from ssl_lightning.methods.mae import MAE, MASK_STREAM
from ssl_lightning.models.heads import DINOHead
from ssl_lightning.models.masking import patchify, random_places
from tests.losses import reference_masked as paper
from tests.methods.harness import random_batch, step, tiny_method
from tests.methods.test_joint_methods import with_local_views


def test_mae_step_equals_the_paper() -> None:
    """The decoder by hand: narrowed visible tokens in their places, mask tokens in all others, positions on all."""
    method, batch = tiny_method("mae"), random_batch(5)
    assert isinstance(method, MAE)
    x, vit, decoder = batch.views[0], method.backbone, method.decoder
    visible, mask = random_places(uniform(0, 0, batch.indices, MASK_STREAM, 16), method.hidden)
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
    _, mask = random_places(uniform(0, 0, batch.indices, MASK_STREAM, 16), method.hidden)
    x = batch.views[0].clone().requires_grad_()
    output = method.backbone.tokens(x, random_places(uniform(0, 0, batch.indices, MASK_STREAM, 16), method.hidden)[0])
    output.square().sum().backward()
    gradient = patchify(x.grad, 1).abs().sum(-1)  # (B, N)
    assert not gradient[mask].any()
    assert gradient[~mask].all()


def test_masks_change_with_image_and_epoch_and_with_nothing_else() -> None:
    """Whatever the batch and the rank: the mask belongs to the image."""
    indices = torch.arange(6)
    first, again = (random_places(uniform(0, 0, indices, MASK_STREAM, 16), 12)[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first[2:4], random_places(uniform(0, 0, indices[2:4], MASK_STREAM, 16), 12)[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, random_places(uniform(0, 1, indices, MASK_STREAM, 16), 12)[1])


def test_mae_shows_the_image_the_mask_and_the_filling() -> None:
    method, batch = tiny_method("mae"), random_batch(5)
    image, seen, filled = method.pictures(batch)["reconstruction"]
    hidden = (seen == 0) & (image != 0)
    assert hidden.double().mean() == 0.75
    assert torch.equal(image[~hidden], filled[~hidden])
    assert not torch.equal(image[hidden], filled[hidden])


def test_dino_step_equals_the_paper() -> None:
    """Two steps, so that the second one's targets are centred by the first one's scores."""
    method = tiny_method("dino")
    assert isinstance(method, DINO)
    for parameter in method.teacher.parameters():  # no longer the student
        parameter.data += 0.1 * torch.randn_like(parameter)
    center = torch.zeros(5, dtype=torch.float64)
    for seed in range(2):
        batch = with_local_views(random_batch(6, seed=seed))
        answers = [method.teacher(x) for x in batch.global_views]
        scores = [method.projector(method.backbone(x)) for x in batch.views]
        targets = [paper.dino_target(t, center, 0.04) for t in answers]
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
    assert saved == {"judged_by": "teacher.networks.0"}


def test_dinos_head_scores_unit_vectors_by_unit_prototypes() -> None:
    head, x = DINOHead(6, 8, 4, 10).double(), torch.randn(5, 6, dtype=torch.float64)
    prototypes = head.prototypes / head.prototypes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), normalize(head.mlp(x), dim=1) @ prototypes.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(head.project(x).norm(dim=1), torch.ones(5, dtype=torch.float64), atol=1e-12, rtol=0)
