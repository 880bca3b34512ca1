"""Predictive coding on sequences (van den Oord et al. 2018, sections 2 and 3.1) against the paper, by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.core.batch import Batch
from ssl_lightning.core.errors import UserError
from ssl_lightning.losses.cpc import NEGATIVES, CPCLoss
from ssl_lightning.losses.nt_xent import NTXent
from ssl_lightning.methods.cpc import CPC
from ssl_lightning.models.audio import MelConvNet, WaveConvNet
from ssl_lightning.models.context import GRUContext, InContext, RowContext, TransformerContext
from ssl_lightning.models.transformer1d import Transformer1d
from tests.losses.reference import assert_close, value_and_grads
from tests.methods.harness import SmoothBackbone, at, step

CONTEXTS: dict[str, Callable[[int], Any]] = {
    "gru": partial(GRUContext, hidden_dim=6),
    "transformer": partial(TransformerContext, hidden_dim=8, depth=2, heads=2),
    "rows": partial(RowContext, hidden_dim=4, depth=2),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def info_nce(predictions: Tensor, targets: Tensor, negatives: str, temperature: float) -> Tensor:
    """Equation 4: for each prediction the candidates are listed one by one, its own target among them."""
    items, places = predictions.shape[:2]
    terms = []
    for b in range(items):
        for s in range(places):
            candidates = {
                "all": [(c, t) for c in range(items) for t in range(places)],
                "batch": [(c, s) for c in range(items)],
                "item": [(b, t) for t in range(places)],
                "both": [(c, s) for c in range(items)] + [(b, t) for t in range(places) if t != s],
            }[negatives]
            scores = [(predictions[b, s] * targets[c, t]).sum() / temperature for c, t in candidates]
            own = scores[candidates.index((b, s))]
            terms.append(torch.stack([score.exp() for score in scores]).sum().log() - own)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_the_loss_equals_the_paper(negatives: Any) -> None:
    inputs = drawn(4, 3, 5), drawn(4, 3, 5, seed=1)
    ours = value_and_grads(CPCLoss(0.7, negatives), *inputs)
    assert_close(ours, value_and_grads(lambda p, z: info_nce(p, z, negatives, 0.7), *inputs), atol=1e-10)


def test_of_rows_all_are_candidates_and_items_cannot_be_told() -> None:
    p, z = drawn(4, 3, 5), drawn(4, 3, 5, seed=1)
    assert CPCLoss()(p, z) == CPCLoss()(p.flatten(0, 1), z.flatten(0, 1))
    with pytest.raises(ValueError, match=r"takes \(B, S, D\)"):
        CPCLoss(negatives="both")(p[0], z[0])
    with pytest.raises(ValueError, match="equal shapes"):
        CPCLoss()(p, z[:, :1])
    with pytest.raises(UserError, match=r"negatives=none is unknown; use all, batch, item, both"):
        CPCLoss(negatives="none")  # type: ignore[arg-type]


def cpc(context: str = "gru", negatives: Any = "both", readout: str = "context", **parts: Any) -> CPC:
    torch.manual_seed(0)
    backbone = parts.pop("backbone", None) or WaveConvNet(width=5, kernels=(4, 4), layer_strides=(2, 2))
    sizes = {"tile_size": None, "offsets": (1, 3), "readout": readout, **parts}
    return CPC(backbone, CONTEXTS[context], CPCLoss(negatives=negatives), **sizes).double()


def waves(size: int = 3, length: int = 28) -> Batch:
    return Batch([drawn(size, 1, length)], torch.arange(size), torch.arange(size))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("readout", ["backbone", "context"])
def test_the_step_equals_the_paper(context: str, readout: str, epoch: int) -> None:
    method, batch = at(cpc(context, readout=readout), epoch), waves()
    encoder, seen = method.networks
    found = step(method, batch)
    z = encoder.feature_map(batch.views[0])  # (B, D, T)
    rows = seen(z[..., None])[..., 0]  # (B, C, T)
    losses = []
    for k in (1, 2, 3):
        weight = method.predictors[k - 1].weight
        places = range(z.shape[2] - k)
        predictions = torch.stack([torch.stack([weight @ rows[b, :, t] for t in places]) for b in range(3)])
        targets = torch.stack([torch.stack([z[b, :, t + k] for t in places]) for b in range(3)])
        losses.append(info_nce(predictions, targets, "both", 1.0))
    torch.testing.assert_close(found["loss"], sum(losses) / 3, atol=1e-10, rtol=0)
    read = rows if readout == "context" else z
    torch.testing.assert_close(found["features"], read.mean(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(method.embed(batch.views[0]), read.mean(2), atol=1e-12, rtol=0)
    assert found["features"].shape == (3, method.backbone.out_dim)
    found["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for name, p in method.named_parameters() if "bias" not in name)


def test_the_gru_is_the_paper_s_recurrence() -> None:
    """Equations of Cho et al. 2014 in the form that torch writes, step by step from a state of zeros."""
    net = GRUContext(3, 4).double()
    x = drawn(2, 3, 5, 1)
    w, u, b, c = (p.unflatten(0, (3, 4)) for p in net.gru.parameters())
    h, states = torch.zeros(2, 4, dtype=torch.float64), []
    for t in range(5):
        now = x[:, :, t, 0]
        r, update = (torch.sigmoid(now @ w[i].T + b[i] + h @ u[i].T + c[i]) for i in (0, 1))
        new = torch.tanh(now @ w[2].T + b[2] + r * (h @ u[2].T + c[2]))
        h = (1 - update) * new + update * h
        states.append(h)
    torch.testing.assert_close(net(x)[..., 0], torch.stack(states, 2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("context", ["gru", "transformer"])
@pytest.mark.parametrize("columns", [1, 3])
def test_a_step_sees_all_up_to_it_in_its_own_column(context: str, columns: int) -> None:
    torch.manual_seed(0)
    net = CONTEXTS[context](6).double()
    x = drawn(2, 6, 5, columns).requires_grad_()
    assert net(x).shape == (2, net.out_dim, 5, columns)
    for t in range(5):
        weights = drawn(2, net.out_dim, seed=t)  # the sum over a LayerNorm's output has no gradient
        (gradient,) = torch.autograd.grad((net(x)[:, :, t, 0] * weights).sum(), x)
        seen = gradient.abs().sum((0, 1)) > 1e-12  # (T, W)
        assert seen[:, 0].tolist() == [other <= t for other in range(5)]
        assert not seen[:, 1:].any()


@pytest.mark.parametrize("context", ["gru", "transformer"])
@pytest.mark.parametrize("training", [False, True])
def test_later_sound_changes_no_earlier_context(context: str, training: bool) -> None:
    """Through the whole network: what lies beyond the last sample that a step's encoder hears changes nothing."""
    net = InContext(WaveConvNet(width=5, norm="group"), CONTEXTS[context]).double().train(training)
    for layer in net.encoder.layers:
        layer["norm"] = nn.Identity()
    x = drawn(1, 1, 160 * 12)
    changed = torch.cat([x[..., : 160 * 6], drawn(1, 1, 160 * 6, seed=1)], 2)
    before, after = net.feature_map(x), net.feature_map(changed)
    assert torch.equal(before[..., :5], after[..., :5])  # step 4 hears up to sample 160 * 5 + 152
    assert not torch.isclose(before[..., 6:], after[..., 6:]).all(1).any()


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_encoder_in_its_context_is_an_encoder(context: str) -> None:
    net = InContext(MelConvNet(mels=16, width=4, out_dim=5), CONTEXTS[context])
    x = torch.randn(2, 1, 16, 40)
    assert net.feature_map(x).shape == (2, net.out_dim, 5)
    torch.testing.assert_close(net(x), net.feature_map(x).mean(2))
    assert net.strides == (8,)


def test_one_that_begins_with_another_s_weights_keeps_its_context() -> None:
    first = cpc()
    second = cpc(backbone=first.backbone.float())
    assert second.backbone is first.backbone
    assert [name for name in second.state_dict() if "context" in name] == [
        name for name in first.state_dict() if "context" in name
    ]


def test_another_loss_of_two_tensors_gets_rows() -> None:
    method = CPC(WaveConvNet(5), CONTEXTS["gru"], NTXent(), tile_size=None, offsets=(1, 1)).double()
    assert step(method, waves(length=640))["loss"].isfinite()


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UserError, match=r"each of its tokens sees the whole item; choose a convnet"):
        cpc(backbone=Transformer1d(64, 8, dim=8, depth=1, heads=2))
    with pytest.raises(UserError, match="cannot use SmoothBackbone: it gives no sequence of steps"):
        cpc(backbone=SmoothBackbone())
    with pytest.raises(UserError, match=r"readout=context is for sequences \(method.tile_size=null\)"):
        cpc(backbone=SmoothBackbone(), tile_size=4)
    with pytest.raises(UserError, match="3 heads do not divide a width of 8"):
        TransformerContext(5, 8, heads=3)
    with pytest.raises(UserError, match="views have 3 steps of this network, too few to predict 3 ahead"):
        step(cpc(), waves(length=12))
    with pytest.raises(UserError, match=r"no images to cut tiles of; set method\.tile_size=null"):
        CPC(SmoothBackbone(), RowContext, CPCLoss()).accept([], ["global"])
    with pytest.raises(UserError, match=r"tile_size=null is for sequences; give the side of a tile"):
        cpc().accept([32], ["global"])
