"""Masked modelling, self-distillation and pretext tasks: the papers' equations as plain loops in float64.

Where a paper and its authors' code differ, the docstring says which of the two is written here. What a paper takes
from its teacher or from the data gets no gradient here.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tests.losses.reference import cos


def _average(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total / len(terms)


def _log_softmax(logits: Sequence[Tensor]) -> list[Tensor]:
    largest = max(float(logit.detach()) for logit in logits)
    total = torch.zeros_like(logits[0])
    for logit in logits:
        total = total + (logit - largest).exp()
    return [logit - largest - total.log() for logit in logits]


def _cross_entropy(target: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """H(target, softmax(logits)) = -sum_k target_k log softmax(logits)_k, in nats."""
    total = torch.zeros_like(logits[0])
    for probability, log in zip(target, _log_softmax(logits), strict=True):
        total = total - probability * log
    return total


def _smooth_l1(difference: Tensor, beta: float) -> Tensor:
    """Of one scalar: a parabola up to beta, a line of slope 1 beyond."""
    size = difference.abs()
    return 0.5 * difference.pow(2) / beta if float(size.detach()) <= beta else size - 0.5 * beta


def patches_of(image: Tensor, size: int) -> list[Tensor]:
    """The flat patches of an image (3, H, W), as in MAE's patchify: patches row by row, in each pixels row by row,
    in each pixel the channels. A patch of 2 x 2 is r g b of its upper left pixel, r g b of the upper right, ...
    """
    channels, height, width = image.shape
    assert height % size == 0
    assert width % size == 0
    found = []
    for top in range(0, height, size):
        for left in range(0, width, size):
            values = []
            for y in range(top, top + size):
                for x in range(left, left + size):
                    values += [image[c, y, x] for c in range(channels)]
            found.append(torch.stack(values))
    return found


def masked_pixels(
    prediction: Tensor, patches: Tensor, mask: Tensor, norm_target: bool, error: Literal["squared", "absolute"]
) -> Tensor:
    """MAE (He et al. 2022), sec. 3, "Reconstruction target", and SimMIM (Xie et al. 2022), sec. 3.4.

    MAE is squared, SimMIM is absolute without norm_target. (B, N, C), (B, N, C), (B, N): True is hidden.
    The mean over a patch's values, then over ALL hidden patches of the batch: an image with more of them counts
    more. (Both draw the same number for every image.) Visible patches count nothing.

    norm_target: MAE's text has each patch's mean and standard deviation, and no more; written is the code
    (models_mae.py), with the unbiased variance, C-1, and 1e-6 under the root. SimMIM's code (simmim.py) sums over
    pixels and divides by the hidden pixels + 1e-5 and by 3 channels; the 1e-5 is not written here.
    """
    terms = []
    for b in range(len(prediction)):
        for n in range(prediction.shape[1]):
            if not bool(mask[b, n]):
                continue
            target = patches[b, n].detach()
            values = len(target)
            if norm_target:
                centered = target - target.sum() / values
                variance = centered.pow(2).sum() / (values - 1)
                target = centered / (variance + 1e-6).sqrt()
            errors = []
            for predicted, wanted in zip(prediction[b, n], target, strict=True):
                difference = predicted - wanted
                errors.append(difference.pow(2) if error == "squared" else difference.abs())
            terms.append(_average(errors))
    return _average(terms)


def sincos_positions(grid: int, dim: int) -> Tensor:
    """MAE's fixed position embedding (the paper: "sine-cosine"), (grid * grid, dim), patches row by row.

    As in the code (util/pos_embed.py, after MoCo v3): the first half of the width is of the COLUMN, the second half
    of the row; the code's names say the opposite, emb_h for the first, but its grid has w first. Each half is all
    sines, then all cosines (not in turns, as Vaswani et al. 2017 have them), of position * 10000^(-i / (dim/4)).
    A class token, if there is one, has zeros: the caller's to prepend.
    """
    assert dim % 4 == 0
    quarter = dim // 4
    rows = []
    for row in range(grid):
        for column in range(grid):
            values = []
            for position in (column, row):
                angles = [position * 10000 ** (-i / quarter) for i in range(quarter)]
                values += [math.sin(angle) for angle in angles]
                values += [math.cos(angle) for angle in angles]
            rows.append(values)
    return torch.tensor(rows, dtype=torch.float64)


def dino(scores: Sequence[Tensor], targets: Sequence[Tensor], t: float) -> Tensor:
    """DINO (Caron et al. 2021), eq. 1 to 3: every global view's target against every OTHER view of the student.

    scores: (B, K) per view, the global ones first; targets: (B, K), probabilities, per global view. Eq. 3 sums over
    the pairs of views; here, as in the code (main_dino.py), it is the mean over pairs, and over the batch.
    """
    pairs = []
    for u, target in enumerate(targets):
        for v, score in enumerate(scores):
            if v == u:
                continue
            images = []
            for wanted, row in zip(target.detach(), score, strict=True):
                images.append(_cross_entropy(wanted.unbind(), [s / t for s in row]))
            pairs.append(_average(images))
    return _average(pairs)


def dino_target(teacher_scores: Tensor, center: Tensor, t: float) -> Tensor:
    """DINO's target: centered, then sharpened, softmax((g - c) / t), row by row. No gradient.

    Written is algorithm 1 and the code, which subtract the center. The paper's text (sec. 3.1, "Avoiding collapse")
    has it as a bias that is ADDED, g + c.
    """
    rows = []
    for row in teacher_scores.detach():
        logs = _log_softmax([(g - c) / t for g, c in zip(row, center.detach(), strict=True)])
        rows.append(torch.stack([log.exp() for log in logs]))
    return torch.stack(rows)


def dino_center(center: Tensor, teacher_scores: Tensor, m: float) -> Tensor:
    """DINO, eq. 4: c <- m c + (1-m) mean of the teacher's scores, before the softmax. No gradient.

    The rows are those of all global views (and all ranks) together. The code makes the target with the old center,
    and updates it afterwards.
    """
    return m * center.detach() + (1 - m) * _average(list(teacher_scores.detach()))


def ibot_patches(student: Tensor, target: Tensor, mask: Tensor, t: float, all_images: bool = False) -> Tensor:
    """iBOT (Zhou et al. 2022), L_MIM: the cross-entropy of patch tokens, at the masked ones only, of one view.

    student: (B, N, K), scores; target: (B, N, K), probabilities of the same view, unmasked; mask: (B, N).
    The paper's equation sums over an image's masked patches. Here it is their mean, as in the authors' code
    (main_ibot.py; DINOv2's ibot_patch_loss.py too), and then the mean over the images that have a masked patch.
    Here the code differs: it divides by ALL images of the batch, and an image without a mask counts as 0 (its mask
    count is clamped to 1). That is all_images=True; the two are equal when every image has a mask.
    """
    images = []
    for b in range(len(student)):
        masked = []
        for n in range(student.shape[1]):
            if bool(mask[b, n]):
                masked.append(_cross_entropy(target[b, n].detach().unbind(), [s / t for s in student[b, n]]))
        if masked:
            images.append(_average(masked))
    mean = _average(images)
    return mean * len(images) / len(student) if all_images else mean


def koleo(z: Tensor) -> Tensor:
    """KoLeo (Sablayrolles et al. 2019; DINOv2, Oquab et al. 2023, sec. 4): -mean_i log min_{j != i} ||z_i - z_j||.

    Of unit rows. Who is nearest has no gradient; the distance has, into both rows. Written is the paper: DINOv2's
    code (koleo_loss.py) adds 1e-8 to each component of the difference and 1e-8 to the distance, which keeps equal
    rows finite (here they are infinite). It calls this once per global view, and sums: two views of an image are
    never in one z.
    """
    units = [row / row.pow(2).sum().sqrt() for row in z]
    terms = []
    for i, anchor in enumerate(units):
        distances = [(anchor - other).pow(2).sum().sqrt() for j, other in enumerate(units) if j != i]
        sizes = [float(distance.detach()) for distance in distances]
        terms.append(-distances[sizes.index(min(sizes))].log())
    return _average(terms)


def smooth_l1(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """data2vec (Baevski et al. 2022), sec. 3.4, "Objective": the mean over all entries. No gradient into the target.

    The paper's equation is of one position, and does not say how features are reduced. The mean is that of the
    authors' vision code (data2vec_vision, engine_for_cyclical.py); their fairseq code sums over features, takes the
    mean over masked positions and scales (1/sqrt(D), if not configured). Which rows are masked is the caller's.
    """
    entries = []
    for predicted, wanted in zip(prediction.flatten(), target.detach().flatten(), strict=True):
        entries.append(_smooth_l1(predicted - wanted, beta))
    return _average(entries)


def ijepa(predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """I-JEPA (Assran et al. 2023), as in the authors' code (train.py): smooth L1 of beta 1, the mean over everything.

    (B, K, D) per target block. The targets come layer-normalised over D, without affine, BEFORE the block is cut out:
    the caller's to do. The paper (sec. 3, "Loss") has another one: the squared L2 distance, summed over a block's
    tokens and over D, the mean over blocks, and no layer norm. No gradient into the targets.
    """
    entries = []
    for prediction, target in zip(predictions, targets, strict=True):
        for predicted, wanted in zip(prediction.flatten(), target.detach().flatten(), strict=True):
            entries.append(_smooth_l1(predicted - wanted, 1.0))
    return _average(entries)


def msn(
    anchors: Sequence[Tensor],
    target: Tensor,
    prototypes: Tensor,
    t_anchor: float,
    t_target: float,
    weight: float,
    iterations: int = 0,
    prior_power: float | None = None,
) -> Tensor:
    """MSN (Assran et al. 2022), sec. 3 and eq. 1: mean cross-entropy over the M*B anchors - weight * H(mean anchor).

    (B, P) per anchor view, (B, P), (K, P); scores are cosines. No gradient into the target, nor through it into the
    prototypes: those learn from the anchors' side only.
    The paper sharpens the target by a lower temperature. The code (losses.py) by p^(1/T) / sum instead, with p at the
    anchors' temperature: the same thing, t_target = T * t_anchor (0.25 * 0.1). The code's entropy term is
    log K - H, larger by the constant log K. Its optional Sinkhorn takes the sharpened targets: columns (prototypes)
    are divided by their sums, then rows, `iterations` times.
    PMSN (Assran et al. 2023) has KL(mean anchor || k^-prior_power, normed) in place of -H.
    """
    terms, predictions = [], []
    sharpened = [
        [log.exp() for log in _log_softmax([cos(z, q) / t_target for q in prototypes.detach()])]
        for z in target.detach()
    ]
    for _ in range(iterations):
        for k in range(len(prototypes)):
            total = sum(row[k] for row in sharpened)
            for row in sharpened:
                row[k] = row[k] / total
        sharpened = [[p / sum(row) for p in row] for row in sharpened]
    for anchor in anchors:
        for z, sharp in zip(anchor, sharpened, strict=True):
            logits = [cos(z, q) / t_anchor for q in prototypes]
            terms.append(_cross_entropy(sharp, logits))
            predictions.append([log.exp() for log in _log_softmax(logits)])
    entropy = torch.zeros_like(terms[0])
    for k in range(len(prototypes)):
        mean = _average([prediction[k] for prediction in predictions])
        entropy = entropy - mean * mean.log()
        if prior_power is not None:
            shares = [j**-prior_power for j in range(1, len(prototypes) + 1)]
            entropy = entropy + mean * math.log(shares[k] / sum(shares))  # minus the divergence, in the end
    return _average(terms) - weight * entropy


def cpc_info_nce(predictions: Tensor, targets: Tensor) -> Tensor:
    """CPC (van den Oord et al. 2018), eq. 4, on images as in Hénaff et al. 2020: row i's positive is targets[i].

    (R, D): the prediction W c of eq. 3, and the encoder's z. The negatives are all other rows, of the same image and
    of others; scores are plain dot products, no temperature, no normalisation. Gradient into both: no stop-gradient.
    The mean over rows (Hénaff's equation sums over places and offsets; the offsets are the caller's).
    No code was released for either. The pseudocode of Hénaff et al. (appendix A.2) multiplies the predictions by 0.1
    and has more negatives: the targets of all places, those that no row predicts too. Neither is written here.
    """
    terms = []
    for i, prediction in enumerate(predictions):
        logs = _log_softmax([(prediction * target).sum() for target in targets])
        terms.append(-logs[i])
    return _average(terms)


def ab_rebalancing(prior: Tensor, lam: float) -> Tensor:
    """Colorful image colorization (Zhang et al. 2016), eq. 4: w ~ 1 / ((1-lam) p + lam/Q), with sum_q p_q w_q = 1.

    prior: (Q,), sums to 1, smoothed already (the paper: a Gaussian of sigma 5; lam 1/2). Written is the paper: the
    authors' code (caffe_traininglayers.py, PriorFactor) has the uniform part over the bins with p > 0 only, which is
    the same when no bin is empty.
    """
    bins = len(prior)
    inverse = [1 / ((1 - lam) * p + lam / bins) for p in prior]
    expected = torch.zeros_like(inverse[0])
    for p, w in zip(prior, inverse, strict=True):
        expected = expected + p * w
    return torch.stack([w / expected for w in inverse])


def soft_encode(ab: Tensor, centers: Tensor, neighbours: int = 5, sigma: float = 5.0) -> Tensor:
    """The same paper, sec. 2.1: a colour (2,) as weights (Q,) over its nearest bin centers (Q, 2), which sum to 1.

    Weights exp(-d^2 / (2 sigma^2)), 0 for all bins that are not among the nearest (of equals, the first). The paper
    has 5 neighbours, sigma 5; the authors' code (caffe_traininglayers.py, NNEncLayer) has 10.
    """
    squared = [(ab - center).pow(2).sum() for center in centers]
    nearest = sorted(range(len(centers)), key=lambda q: float(squared[q].detach()))[:neighbours]
    kernel = [(-d / (2 * sigma**2)).exp() if q in nearest else torch.zeros_like(d) for q, d in enumerate(squared)]
    total = _average(kernel) * len(kernel)
    return torch.stack([k / total for k in kernel])
