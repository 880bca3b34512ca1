"""The training steps of the joint-embedding methods against the papers' equations, and what each must never do."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.methods.base import SSLMethod
from ssl_lightning.methods.deepcluster_v2 import DeepClusterV2
from ssl_lightning.methods.lejepa import LeJEPA
from ssl_lightning.methods.nnclr import NNCLR
from ssl_lightning.methods.plain import roles_by_size
from ssl_lightning.methods.swav import SwAV
from tests.losses import reference
from tests.losses import reference_joint as paper
from tests.methods.harness import METHODS, at, needs_vit, random_batch, rows, tiny_method


def project(method: SSLMethod, x: Tensor) -> Tensor:
    return method.projector(method.backbone(x))  # type: ignore[operator]


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected.detach(), atol=1e-10, rtol=0)


def with_local_views(batch: Batch) -> Batch:
    small = [view[:, :, :2, :2] + 0.1 for view in batch.views]
    return batch._replace(views=[*batch.views, *small], roles=("global", "global", "local", "local"))


def test_moco_v3_has_both_directions_times_two_t() -> None:
    method, batch = tiny_method("moco_v3"), random_batch(6)
    x1, x2 = batch.views
    q1, q2 = (method.predictor(project(method, x)) for x in (x1, x2))
    k1, k2 = method.teacher(x1), method.teacher(x2)
    expected = 0.4 * (reference.info_nce(q1, k2, None, 0.2) + reference.info_nce(q2, k1, None, 0.2))
    same(method.training_step(batch, 0)["loss"], expected)


def test_moco_v3_freezes_the_patch_projection_of_a_vit() -> None:
    overrides = ("backbone=timm", "+backbone.depth=2", "+backbone.embed_dim=48", "+backbone.patch_size=8")
    from ssl_lightning.cli.run import compose
    from ssl_lightning.config.instantiate import instantiate

    config = compose(["method=moco_v3", *overrides, "method.freeze_patch_embed=true"])
    backbone = instantiate(config.values["backbone"])
    method = instantiate(config.values["method"], backbone=backbone)
    frozen = {name for name, p in method.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    with pytest.raises(UserError, match="this backbone has no patch_embed"):
        tiny_method("moco_v3", ("method.freeze_patch_embed=true",))


def test_nnclr_searches_before_the_batch_enters() -> None:
    method, batch = tiny_method("nnclr"), random_batch(6)
    assert isinstance(method, NNCLR)
    for step in range(3):  # also once its own support set holds past projections
        batch = random_batch(6, seed=step)
        z1, z2 = (project(method, x) for x in batch.views)
        p1, p2 = method.predictor(z1), method.predictor(z2)
        support = method.support.snapshot()
        same(method.training_step(batch, 0)["loss"], paper.nnclr(z1, z2, p1, p2, support, 0.2))
        assert ((support @ normalize(z1).T).max() < 1 - 1e-9).all()  # no view was its own neighbour
        start = int(method.support.pointer) - 6
        same(method.support.vectors[torch.arange(start, start + 6) % 16], normalize(z1))


def test_supcon_uses_the_labels() -> None:
    method, batch = tiny_method("supcon"), random_batch(6)
    z1, z2 = (project(method, x) for x in batch.views)
    same(method.training_step(batch, 0)["loss"], paper.sup_con(z1, z2, batch.labels, 0.2))


def test_ressl_scores_before_it_enqueues() -> None:
    method, batch = tiny_method("ressl"), random_batch(6)
    strong, weak = batch.views
    z, t, queue = project(method, strong), method.teacher(weak), method.queue.snapshot()
    same(method.training_step(batch, 0)["loss"], paper.ressl(z, t, queue, 0.1, 0.04))
    same(method.queue.vectors[:6], normalize(t))


def test_simsiam_stops_the_gradient_at_the_projection() -> None:
    method, batch = tiny_method("simsiam"), random_batch(6)
    z1, z2 = (project(method, x) for x in batch.views)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    terms = [reference.cos(p, z.detach()) for a, b in ((p1, z2), (p2, z1)) for p, z in zip(a, b)]
    expected = 1 - torch.stack(terms).mean()
    weights = list(method.backbone.parameters())
    expected_grads = torch.autograd.grad(expected, weights)
    found = method.training_step(batch, 0)["loss"]
    same(found, expected)
    for a, b in zip(torch.autograd.grad(found, weights), expected_grads):
        same(a, b)


def test_simsiams_predictor_has_a_constant_rate() -> None:
    method = tiny_method("simsiam")
    from ssl_lightning.cli.run import compose
    from ssl_lightning.config.instantiate import instantiate

    recipe = instantiate(compose(["method=simsiam"]).values["optimizer"])
    built = recipe.build(method, 256, 100, 10, method.constant_lr)
    still = {id(p) for p in method.predictor.parameters()}
    for group in built["optimizer"].param_groups:
        inside = {id(p) for p in group["params"]} <= still
        assert inside == bool(group.get("constant"))
        assert (group["lr"] == recipe.lr(256)) == inside  # the others begin their warm-up


def test_tico_carries_its_covariance_from_step_to_step() -> None:
    method = tiny_method("tico")
    covariance = torch.zeros(5, 5, dtype=torch.float64)
    for step in range(3):
        batch = random_batch(6, seed=step)
        z, t = project(method, batch.views[0]), method.teacher(batch.views[1])
        expected, covariance = paper.tico(z, t, covariance, 0.9, 8.0)
        same(method.training_step(batch, step)["loss"], expected)
        same(method.covariance, covariance)


def test_lejepa_with_local_views() -> None:
    method, batch = tiny_method("lejepa"), with_local_views(random_batch(6))
    assert isinstance(method, LeJEPA)
    z = [project(method, x) for x in batch.views]
    directions = method.random_directions(0, z[0])
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(256, dtype=torch.float64))
    expected = paper.lejepa(z, 2, directions, 0.02, 33, 3.0)
    same(method.training_step(batch, 0)["loss"], expected)
    assert not torch.equal(method.random_directions(1, z[0]), directions)  # anew at each step


@pytest.mark.parametrize(("epoch", "queue"), [(0, False), (1, False), (2, True), (3, True)])
def test_swav_with_local_views(epoch: int, queue: bool) -> None:
    method, batch = at(tiny_method("swav"), epoch), with_local_views(random_batch(6))
    assert isinstance(method, SwAV)
    method.queue_epoch = 2
    prototypes = normalize(method.prototypes.weight)
    z = [normalize(project(method, x)) for x in batch.views]
    past = [q.snapshot() for q in method.queues]  # type: ignore[operator]
    codes = []
    for v in range(2):
        rows = torch.cat([z[v], past[v]]) if queue else z[v]
        codes.append(paper.sinkhorn(rows @ prototypes.T, 0.05, 3)[:6])
    expected = paper.swav([z_v @ prototypes.T for z_v in z], codes, 0.1)
    same(method.training_step(batch, 0)["loss"], expected)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(6, dtype=torch.float64))
    same(method.queues[0].vectors[:6], z[0])


def test_swav_keeps_its_prototypes_in_the_first_epochs() -> None:
    method = tiny_method("swav")
    assert isinstance(method, SwAV)
    method.frozen_epochs = 2
    for epoch, expected in ((0, True), (1, True), (2, False), (3, False)):
        at(method, epoch).zero_grad()
        method.training_step(random_batch(6), 0)["loss"].backward()
        method.on_before_optimizer_step(None)  # type: ignore[arg-type]
        assert (method.prototypes.weight.grad is None) == expected


def test_densecl_is_both_losses() -> None:
    method, batch = tiny_method("densecl"), random_batch(4)
    x1, x2 = batch.views
    f1, f2 = (method.backbone.forward_features(x) for x in (x1, x2))
    q, dense_q = method.head(f1)
    k, dense_k = method.teacher(x2)
    queues = method.queue.snapshot(), method.dense_queue.snapshot()
    whole = reference.info_nce(q, k, queues[0], 0.2)
    maps = (dense_q.transpose(1, 2), dense_k.transpose(1, 2), f1.flatten(2), f2.flatten(2))
    dense = paper.dense_info_nce(*maps, queues[1], 0.2)
    same(method.training_step(batch, 0)["loss"], (whole + dense) / 2)
    same(method.queue.vectors[:4], normalize(k))
    same(method.dense_queue.vectors[:4], normalize(dense_k.mean(1)))


def test_deepcluster_remembers_and_clusters() -> None:
    method, batch = tiny_method("deepcluster_v2"), random_batch(8)
    assert isinstance(method, DeepClusterV2)
    z = [normalize(project(method, x)) for x in batch.views]
    method.remember(batch.indices, *z)
    for v in range(2):
        same(method.memory[v], z[v])
    method.cluster()
    losses = []
    for head in range(3):
        memory = z[head % 2]
        labels, again = paper.spherical_kmeans_step(memory, method.centroids[head])
        assert torch.equal(method.assignments[head], labels)
        same(again, method.centroids[head])  # k-means has come to rest
        logits = torch.cat(z) @ method.centroids[head].T / 0.1
        losses.append(torch.nn.functional.cross_entropy(logits, labels.repeat(2)))
    same(method.training_step(batch, 0)["loss"], torch.stack(losses).mean())


def test_deepcluster_is_told_how_many_images_there_are() -> None:
    with pytest.raises(UserError, match=r"9 prototypes for 8 items; set method.prototypes"):
        tiny_method("deepcluster_v2", prototypes=9)


def test_deepcluster_learns_of_no_image_that_it_has_not_seen() -> None:
    method, batch = tiny_method("deepcluster_v2"), random_batch(8)
    assert isinstance(method, DeepClusterV2)
    with pytest.raises(UserError, match="0 images were seen for 3 prototypes"):
        method.cluster()
    five = rows(batch, 0, 5)
    method.look(five)
    method.cluster()
    assert (method.assignments[:, 5:] == -100).all()
    same(method.training_step(batch, 1)["loss"], method.training_step(five, 1)["loss"])
    assert method.seen.all()


def test_deepcluster_clusters_at_the_first_batch_of_an_epoch() -> None:
    method, batch = tiny_method("deepcluster_v2"), random_batch(8)
    assert isinstance(method, DeepClusterV2)
    method.look(batch)
    method.on_train_batch_start(batch, 3)
    assert (method.assignments == -100).all()
    method.on_train_batch_start(batch, 0)
    assert (method.assignments >= 0).all()


def accept(method: SSLMethod, sizes: list[int]) -> None:
    """Is asked with the roles that a plain loader's views get."""
    method.accept(sizes, roles_by_size(sizes))


@pytest.mark.parametrize("name", METHODS)
def test_views_it_cannot_use_are_refused(name: str) -> None:
    method = tiny_method(name)
    size = 4 if needs_vit(name) else 32
    if method.global_views == 1:
        accept(method, [size])
        with pytest.raises(UserError, match="needs one global view and got 2"):
            accept(method, [32, 32])
        with pytest.raises(UserError, match="has no use for local views"):
            accept(method, [32, 16])
        return
    accept(method, [size, size])
    with pytest.raises(UserError, match="needs two global views and got 1"):
        accept(method, [size])
    if method.global_views:
        with pytest.raises(UserError, match="needs two global views and got 3"):
            accept(method, [size] * 3)
    if method.uses_local_views:
        accept(method, [size, size, size // 2, size // 2])
    else:
        with pytest.raises(UserError, match="has no use for local views"):
            accept(method, [32, 32, 16])


def test_a_vit_of_one_size_is_refused_local_views() -> None:
    method = tiny_method("swav")
    method.backbone.patch_embed = torch.nn.Identity()
    method.backbone.patch_embed.strict_img_size, method.backbone.patch_embed.img_size = True, (32, 32)
    with pytest.raises(UserError, match=r"\+backbone.dynamic_img_size=true"):
        accept(method, [32, 32, 16])


def test_roles_decide_what_is_local_and_not_sizes() -> None:
    method = tiny_method("swav")
    method.accept([32, 32, 32], ("global", "global", "local"))
    with pytest.raises(UserError, match="needs two global views and got 1"):
        method.accept([32, 32, 16], ("global", "local", "local"))
    with pytest.raises(UserError, match="a global view of 16 px is smaller than the first, of 32 px"):
        method.accept([32, 16], ("global", "global"))


def test_densecl_refuses_a_backbone_whose_features_are_more_than_a_mean() -> None:
    method = tiny_method("densecl")
    method.backbone.forward = lambda x: 2 * method.backbone.forward_features(x).mean((2, 3))
    with pytest.raises(UserError, match="the mean of its feature map"):
        method.check_views([4, 4])


@pytest.mark.parametrize("loss", ["info_nce", "dcl", "hard_negative"])
@pytest.mark.parametrize("name", ["simclr", "moco", "moco_v1", "moco_v3", "nnclr", "densecl"])
def test_contrastive_methods_take_each_others_losses(name: str, loss: str) -> None:
    method = tiny_method(name, (f"method/loss={loss}",))
    method.training_step(random_batch(6), 0)["loss"].backward()


@pytest.mark.parametrize(("name", "loss"), [("moco", "nt_xent"), ("simclr", "sup_con"), ("vicreg", "ressl")])
def test_a_loss_of_another_kind_is_refused(name: str, loss: str) -> None:
    with pytest.raises(UserError, match=r"does not take .*; choose another method/loss="):
        tiny_method(name, (f"method/loss={loss}",))


def test_a_contrastive_loss_takes_no_labels() -> None:
    method = tiny_method("supcon", ("method/loss=hard_negative",))
    with pytest.raises(UserError, match="takes a queue of vectors and no labels"):
        method.training_step(random_batch(6), 0)


def test_ressls_teacher_sees_a_weak_view_under_every_recipe() -> None:
    from ssl_lightning.cli.run import compose
    from ssl_lightning.config.instantiate import instantiate

    for overrides in ([], ["experiment=cifar10_cpu"], ["data=cifar10"]):
        strong, weak = instantiate(compose(["method=ressl", *overrides]).values["views"]).list()
        assert (weak.jitter_p, weak.grayscale_p, weak.blur_p) == (0, 0, 0)
        assert strong.jitter_p > 0
        assert len(instantiate(compose(["method=simclr", *overrides]).values["views"]).list()) == 2
