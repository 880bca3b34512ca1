"""More papers' equations as plain loops in float64: slow, and easy to hold against the page.

Where a paper and its authors' code differ, the docstring says which of the two is written here.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.losses.reference import cos


def _zero(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype)


def _unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum().sqrt()


def _mean(terms: Sequence[Tensor]) -> Tensor:
    total = _zero(terms[0])
    for term in terms:
        total = total + term
    return total / len(terms)


def _softmax(logits: Sequence[Tensor]) -> list[Tensor]:
    shift = max(float(logit.detach()) for logit in logits)
    exps = [(logit - shift).exp() for logit in logits]
    total = _mean(exps) * len(exps)
    return [e / total for e in exps]


def _cross_entropy(logits: Sequence[Tensor], target: int) -> Tensor:
    """-log softmax(logits)[target]."""
    shift = max(float(logit.detach()) for logit in logits)
    total = _mean([(logit - shift).exp() for logit in logits]) * len(logits)
    return total.log() - (logits[target] - shift)


def _two_views(z1: Tensor, z2: Tensor) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
    """(anchor, its partner, the 2B-2 views of other images) for each of the 2B anchors."""
    found = []
    for i in range(len(z1)):
        others = [view for j in range(len(z1)) if j != i for view in (z1[j], z2[j])]
        found.append((z1[i], z2[i], others))
        found.append((z2[i], z1[i], others))
    return found


def _queue(q: Tensor, k: Tensor, negatives: Tensor | None) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
    """(query, its key, the negatives): the rows given, or the other keys of the batch."""
    found = []
    for i in range(len(q)):
        others = list(negatives) if negatives is not None else [k[j] for j in range(len(k)) if j != i]
        found.append((q[i], k[i], others))
    return found


def _decoupled(anchor: Tensor, positive: Tensor, others: Sequence[Tensor], t: float, weight: Tensor | float) -> Tensor:
    """-w cos(anchor, positive)/t + log U, where U sums the negatives only."""
    u = sum((cos(anchor, other) / t).exp() for other in others)
    assert isinstance(u, Tensor)
    return -weight * cos(anchor, positive) / t + u.log()


def _von_mises_fisher(a: Tensor, b: Tensor, sigma: float, detach_weight: bool) -> list[Tensor]:
    """w_i = 2 - exp(cos_i/sigma) / mean_j exp(cos_j/sigma), over the positive pairs: the weights' mean is 1."""
    exps = [(cos(x, y) / sigma).exp() for x, y in zip(a, b, strict=True)]
    weights = [2 - e / _mean(exps) for e in exps]
    return [w.detach() for w in weights] if detach_weight else weights


def dcl(z1: Tensor, z2: Tensor, t: float) -> Tensor:
    """Decoupled contrastive learning (Yeh et al. 2022), eq. 6, averaged over the 2B anchors (the paper sums)."""
    return _mean([_decoupled(anchor, partner, others, t, 1.0) for anchor, partner, others in _two_views(z1, z2)])


def dclw(z1: Tensor, z2: Tensor, t: float, sigma: float, detach_weight: bool = False) -> Tensor:
    """DCLW, the von-Mises-Fisher weighted variant of the same paper: both anchors of a pair share its weight.

    The paper names no stop-gradient, and the public implementation most cited (raminnakhli) lets the gradient
    through the weight: so does the default here. lightly detaches it: detach_weight=True.
    """
    weights = _von_mises_fisher(z1, z2, sigma, detach_weight)
    terms = []
    for n, (anchor, partner, others) in enumerate(_two_views(z1, z2)):
        terms.append(_decoupled(anchor, partner, others, t, weights[n // 2]))
    return _mean(terms)


def dcl_queue(q: Tensor, k: Tensor, negatives: Tensor | None, t: float) -> Tensor:
    """DCL on MoCo's inputs: the key is not in its query's denominator. Averaged over queries."""
    return _mean([_decoupled(query, key, others, t, 1.0) for query, key, others in _queue(q, k, negatives)])


def dclw_queue(
    q: Tensor, k: Tensor, negatives: Tensor | None, t: float, sigma: float, detach_weight: bool = False
) -> Tensor:
    """DCLW on MoCo's inputs; weights as in dclw, over the pairs (query, key)."""
    weights = _von_mises_fisher(q, k, sigma, detach_weight)
    terms = []
    for weight, (query, key, others) in zip(weights, _queue(q, k, negatives), strict=True):
        terms.append(_decoupled(query, key, others, t, weight))
    return _mean(terms)


def _hard(anchor: Tensor, positive: Tensor, others: Sequence[Tensor], t: float, beta: float, tau_plus: float) -> Tensor:
    n = len(others)
    pos = (cos(anchor, positive) / t).exp()
    neg = [(cos(anchor, other) / t).exp() for other in others]
    importance = [(beta * cos(anchor, other) / t).exp() for other in others]
    reweighted = _mean([w * e for w, e in zip(importance, neg, strict=True)]) * n / _mean(importance)
    estimate = (reweighted - tau_plus * n * pos) / (1 - tau_plus)
    estimate = estimate.clamp(min=n * math.exp(-1 / t))
    return -(pos / (pos + estimate)).log()


def hard_negative(z1: Tensor, z2: Tensor, t: float, beta: float, tau_plus: float) -> Tensor:
    """Hard negative sampling (Robinson et al. 2021), as in the authors' criterion (joshr17/HCL).

    Their weights are exp(beta * log exp(s/t)) = exp(beta * s/t): beta multiplies the logit, not the cosine.
    Reweighted sum = sum(w e) / mean(w), N = 2B-2, then debiased by tau_plus, and clipped below at N exp(-1/t),
    where no gradient passes. No stop-gradient anywhere else: the weights have one too.
    """
    return _mean([_hard(anchor, pos, others, t, beta, tau_plus) for anchor, pos, others in _two_views(z1, z2)])


def hard_negative_queue(
    q: Tensor, k: Tensor, negatives: Tensor | None, t: float, beta: float, tau_plus: float
) -> Tensor:
    """The same on MoCo's inputs: N is the number of negatives. Averaged over queries."""
    return _mean([_hard(query, key, others, t, beta, tau_plus) for query, key, others in _queue(q, k, negatives)])


def sup_con(z1: Tensor, z2: Tensor, labels: Tensor, t: float) -> Tensor:
    """Supervised contrastive learning (Khosla et al. 2020), eq. 2 (L_out), averaged over the 2B anchors.

    A label of -1 is none: the anchor's only positive is its partner, and it is a negative to all others.
    The authors' factor temperature/base_temperature is 1.
    """
    batch = len(z1)
    views = [*z1, *z2]
    terms = []
    for i, anchor in enumerate(views):
        others = [a for a in range(2 * batch) if a != i]
        denominator = sum((cos(anchor, views[a]) / t).exp() for a in others)
        label = int(labels[i % batch])
        same = [a for a in others if int(labels[a % batch]) == label] if label != -1 else [(i + batch) % (2 * batch)]
        logs = [((cos(anchor, views[p]) / t).exp() / denominator).log() for p in same]
        terms.append(-_mean(logs))
    return _mean(terms)


def sup_con_in(z1: Tensor, z2: Tensor, labels: Tensor, t: float) -> Tensor:
    """Eq. 3 (L_in) of the same paper: the logarithm of the positives' mean probability."""
    batch = len(z1)
    views = [*z1, *z2]
    terms = []
    for i, anchor in enumerate(views):
        others = [a for a in range(2 * batch) if a != i]
        denominator = sum((cos(anchor, views[a]) / t).exp() for a in others)
        label = int(labels[i % batch])
        same = [a for a in others if int(labels[a % batch]) == label] if label != -1 else [(i + batch) % (2 * batch)]
        terms.append(-_mean([(cos(anchor, views[p]) / t).exp() / denominator for p in same]).log())
    return _mean(terms)


def ressl(z: Tensor, t: Tensor, queue: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """ReSSL (Zheng et al. 2021): no gradient into the teacher's embedding or the queue."""
    terms = []
    for student, teacher in zip(z, t.detach(), strict=True):
        target = _softmax([cos(teacher, key) / teacher_temperature for key in queue.detach()])
        logits = [cos(student, key) / student_temperature for key in queue.detach()]
        term = _zero(z)
        for j, probability in enumerate(target):
            term = term + probability * _cross_entropy(logits, j)
        terms.append(term)
    return _mean(terms)


def dense_info_nce(
    q: Tensor, k: Tensor, feature_q: Tensor, feature_k: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """DenseCL (Wang et al. 2021), eq. 2, averaged over the B*S places.

    The correspondence is by the backbone's features and has no gradient. (B, P, S), (B, D, S), (K, P).
    """
    terms = []
    for b in range(len(q)):
        for i in range(q.shape[2]):
            alike = [float(cos(feature_q[b, :, i], feature_k[b, :, j]).detach()) for j in range(k.shape[2])]
            match = alike.index(max(alike))
            query = q[b, :, i]
            logits = [cos(query, k[b, :, match]) / temperature]
            logits += [cos(query, negative) / temperature for negative in negatives]
            terms.append(_cross_entropy(logits, 0))
    return _mean(terms)


def barlow_twins(z1: Tensor, z2: Tensor, lam: float, scale: float) -> Tensor:
    """Barlow Twins (Zbontar et al. 2021), eq. 1 and 2; BatchNorm without affine: biased variance + 1e-5."""
    batch, dim = z1.shape
    columns = []
    for z in (z1, z2):
        normed = []
        for d in range(dim):
            centered = z[:, d] - z[:, d].sum() / batch
            variance = centered.pow(2).sum() / batch
            normed.append(centered / (variance + 1e-5).sqrt())
        columns.append(normed)
    total = _zero(z1)
    for i in range(dim):
        for j in range(dim):
            c = (columns[0][i] * columns[1][j]).sum() / batch
            total = total + ((1 - c).pow(2) if i == j else lam * c.pow(2))
    return scale * total


def vicreg(z1: Tensor, z2: Tensor, invariance: float, variance: float, covariance: float, eps: float = 1e-4) -> Tensor:
    """VICReg (Bardes et al. 2022), in the convention of the authors' code (main_vicreg.py).

    Squared error: the mean over B and D (the paper's eq. 5 sums over D). Hinge on the standard deviation: the mean
    over D and over the TWO VIEWS, v/2 + v'/2 (eq. 6 has v + v'). Covariance: the sum over the two views, as in both.
    Variance and covariance divide by B-1.
    """
    batch, dim = z1.shape
    squared = (z1 - z2).pow(2).sum() / (batch * dim)
    hinge, off_diagonal = _zero(z1), _zero(z1)
    for z in (z1, z2):
        centered = [z[:, d] - z[:, d].sum() / batch for d in range(dim)]
        for i in range(dim):
            std = (centered[i].pow(2).sum() / (batch - 1) + eps).sqrt()
            hinge = hinge + (1 - std).clamp(min=0) / dim / 2
            for j in range(dim):
                if i != j:
                    off_diagonal = off_diagonal + ((centered[i] * centered[j]).sum() / (batch - 1)).pow(2) / dim
    return invariance * squared + variance * hinge + covariance * off_diagonal


def _cholesky(matrix: list[list[Tensor]]) -> list[list[Tensor]]:
    """Row by row: L with L L^T = matrix."""
    lower: list[list[Tensor]] = []
    for i in range(len(matrix)):
        row: list[Tensor] = []
        for j in range(i + 1):
            value = matrix[i][j]
            for k in range(j):
                value = value - row[k] * (lower[j][k] if j < i else row[k])
            row.append(value.sqrt() if i == j else value / lower[j][j])
        lower.append(row)
    return lower


def whiten(z: Tensor, eps: float) -> Tensor:
    """Cholesky whitening of rows: L^{-1} (z - mean), L L^T = (1-eps) cov + eps I, cov over N-1."""
    rows, dim = z.shape
    centered = z - z.sum(0) / rows
    shrunk = []
    for i in range(dim):
        line = []
        for j in range(dim):
            cov = (centered[:, i] * centered[:, j]).sum() / (rows - 1)
            line.append((1 - eps) * cov + (eps if i == j else 0.0))
        shrunk.append(line)
    lower = _cholesky(shrunk)
    solved: list[Tensor] = []  # forward substitution, all rows at once: one column per step
    for i in range(dim):
        column = centered[:, i]
        for j in range(i):
            column = column - lower[i][j] * solved[j]
        solved.append(column / lower[i][i])
    return torch.stack(solved, dim=1)


def w_mse(z1: Tensor, z2: Tensor, size: int, eps: float) -> Tensor:
    """W-MSE (Ermolov et al. 2021), as in the authors' code (htdt/self-supervised).

    Each view is whitened by itself, slice by slice of `size` rows; the slices hold the same images in both views.
    (The authors draw the slices from a permutation, w_iter times: the caller's to do.) The loss of a pair is
    2 - 2 cos, averaged over the B pairs. Gradient passes through mean and covariance.
    """
    assert len(z1) % size == 0
    terms = []
    for start in range(0, len(z1), size):
        w1 = whiten(z1[start : start + size], eps)
        w2 = whiten(z2[start : start + size], eps)
        terms += [2 - 2 * cos(a, b) for a, b in zip(w1, w2, strict=True)]
    return _mean(terms)


def tico(
    z: Tensor, t: Tensor, covariance: Tensor, beta: float, rho: float, detach_batch: bool = False
) -> tuple[Tensor, Tensor]:
    """TiCo (Zhu et al. 2022), algorithm 1: (loss, new covariance, detached). The matrix is not centered.

    The invariance is half the squared distance of unit vectors, 1 - cos; some code drops the constant 1.
    No gradient into the old covariance or into t. Into the batch's part of the new one there is, as in the public
    code after algorithm 1 (sayannag's); lightly detached it after the paper's figure: detach_batch=True.
    """
    units = [_unit(row) for row in z]
    outer = torch.zeros_like(covariance)
    for u in units:
        outer = outer + u[:, None] * u[None, :] / len(units)
    if detach_batch:
        outer = outer.detach()
    new = beta * covariance.detach() + (1 - beta) * outer
    terms = []
    for u, v in zip(units, t.detach(), strict=True):
        invariance = 1 - (u * _unit(v)).sum()
        contrast = (u[:, None] * new * u[None, :]).sum()
        terms.append(invariance + rho * contrast)
    return _mean(terms), new.detach()


def epps_pulley(x: Tensor, knots: int, limit: float) -> Tensor:
    """LeJEPA (Balestriero & LeCun 2025), algorithm 1: N times the integral of |ecf(t) - phi(t)|^2 phi(t).

    phi(t) = exp(-t^2/2); trapezoid rule over `knots` points on [-limit, limit]. The paper: 17 points on [-5, 5].
    The authors' package: 17 points on [0, 3] with doubled weights, which is 33 points on [-3, 3] here.
    """
    n = len(x)
    step = 2 * limit / (knots - 1)
    total = _zero(x)
    for i in range(knots):
        t = -limit + i * step
        phi = math.exp(-t * t / 2)
        real = (t * x).cos().sum() / n
        imaginary = (t * x).sin().sum() / n
        error = ((real - phi).pow(2) + imaginary.pow(2)) * phi
        total = total + error * (step / 2 if i in (0, knots - 1) else step)
    return n * total


def sig_reg(z: Tensor, directions: Tensor, knots: int, limit: float) -> Tensor:
    """SIGReg, the same algorithm: the mean over the unit directions (columns, taken as given); z is not normalised."""
    return _mean([epps_pulley((z * d).sum(1), knots, limit) for d in directions.T])


def lejepa(
    z_views: Sequence[Tensor], num_global: int, directions: Tensor, lam: float, knots: int, limit: float
) -> Tensor:
    """LeJEPA, algorithm 2: (1-lam) prediction + lam SIGReg; the first num_global views are the global ones.

    Prediction: all views (the global ones too) against the mean of the global ones, through which gradient passes.
    As in the authors' code the mean is over views, B and P (the paper's equation sums over P).
    """
    batch, dim = z_views[0].shape
    center = torch.zeros_like(z_views[0])
    for z in z_views[:num_global]:
        center = center + z / num_global
    prediction = _mean([(center - z).pow(2).sum() / (batch * dim) for z in z_views])
    regulariser = _mean([sig_reg(z, directions, knots, limit) for z in z_views])
    return (1 - lam) * prediction + lam * regulariser


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """SwAV (Caron et al. 2020), appendix A.1: prototypes first, then samples; rows sum to 1. No gradient."""
    batch, prototypes = scores.shape
    code = (scores.detach() / epsilon).exp()
    code = code / code.sum()
    for _ in range(iterations):
        for k in range(prototypes):
            code[:, k] = code[:, k] / code[:, k].sum() / prototypes
        for b in range(batch):
            code[b] = code[b] / code[b].sum() / batch
    for b in range(batch):
        code[b] = code[b] / code[b].sum()
    return code


def swav(scores: Sequence[Tensor], codes: Sequence[Tensor], t: float) -> Tensor:
    """SwAV, eq. 1 and 2 with multi-crop (authors' code): every code against all OTHER views. No gradient to codes."""
    terms = []
    for g, code in enumerate(codes):
        swapped = []
        for v, score in enumerate(scores):
            if v == g:
                continue
            for target, row in zip(code.detach(), score, strict=True):
                logits = [s / t for s in row]
                term = _zero(score)
                for k, probability in enumerate(target):
                    term = term + probability * _cross_entropy(logits, k)
                swapped.append(term)
        terms.append(_mean(swapped))
    return _mean(terms)


def spherical_kmeans_step(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Assign each row to the most alike centroid (the first of equals); a centroid is the unit mean of unit rows.

    An empty cluster keeps its centroid, as given. No gradient.
    """
    x, centroids = x.detach(), centroids.detach()
    assignments = []
    for row in x:
        alike = [float(cos(row, c)) for c in centroids]
        assignments.append(alike.index(max(alike)))
    updated = []
    for k, centroid in enumerate(centroids):
        members = [_unit(row) for row, a in zip(x, assignments, strict=True) if a == k]
        if not members:
            updated.append(centroid)
            continue
        total = torch.zeros_like(centroid)
        for member in members:
            total = total + member
        updated.append(_unit(total / len(members)))
    return torch.tensor(assignments), torch.stack(updated)


def nnclr(z1: Tensor, z2: Tensor, p1: Tensor, p2: Tensor, support: Tensor, t: float) -> Tensor:
    """NNCLR (Dwibedi et al. 2021), eq. 3 and 4: nearest neighbour in the support set against the predictions.

    No gradient into z or the support. The softmax is over the row (all predictions of the other view), and the two
    directions nn(z1)-p2 and nn(z2)-p1 are averaged.
    """
    terms = []
    for z, p in ((z1, p2), (z2, p1)):
        for i, row in enumerate(z.detach()):
            alike = [float(cos(row, s)) for s in support.detach()]
            nearest = support.detach()[alike.index(max(alike))]
            terms.append(_cross_entropy([cos(nearest, prediction) / t for prediction in p], i))
    return _mean(terms)
