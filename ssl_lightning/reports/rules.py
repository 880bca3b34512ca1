"""The rules of `health`, in the order they are asked. Each looks at one thing and gives one finding or none."""

import math
from collections.abc import Callable

from ssl_lightning.core.finding import BAD, OK, WATCH, Finding
from ssl_lightning.reports.look import CENTERED, FIXED, MASKED, PREDICTING, QUEUE, Look
from ssl_lightning.reports.outcome import (
    BROKEN,
    below_naive,
    falling,
    leak,
    learning,
    not_above_random,
    rising,
    slower,
    sound,
)

Rule = Callable[[Look], Finding | None]


def not_finite(look: Look) -> Finding | None:
    """A loss that is no number trains to "success" in silence (lightning 2.6 checks nothing of the kind)."""
    lost = sum(1 for row in look.rows if "train/lr" in row and "train/loss" not in row)
    if not lost and "not finite" not in str(look.results.get("verdict", "")):
        return None
    says = f"The loss was not a number in {lost} logged steps." if lost else "The features are not finite numbers."
    fix = "Lower optimizer.base_lr, set trainer.gradient_clip_val=1.0, and check data.mean and data.std."
    return Finding("not_finite", BAD, says, normal="A sound run never gets there.", fix=fix)


def normalisation(look: Look) -> Finding | None:
    """Networks expect inputs of mean 0 and standard deviation 1 (LeCun et al. 1998, "Efficient BackProp", section 4.3).
    Pixels of 0..1 with a mean meant for 0..255 (128) arrive as a constant."""
    mean, std = look.about.get("input_mean"), look.about.get("input_std")
    if not isinstance(mean, int | float) or not isinstance(std, int | float):
        return None
    if abs(mean) <= 1.5 and 0.2 <= std <= 4.0:
        return None
    return Finding(
        "normalisation",
        BAD if std < 0.05 or abs(mean) > 10 * max(std, 1e-9) else WATCH,
        f"What the network is fed has mean {mean:.2g} and standard deviation {std:.2g}.",
        normal="Inputs should have a mean near 0 and a standard deviation near 1.",
        fix="Set data.mean and data.std to those of your training set, on the scale 0 to 1 (not 0 to 255).",
    )


def same_views(look: Look) -> Finding | None:
    """Two views that are one image need no learning: an untrained network already maps them to one point. What views
    must leave to be learned: Tian et al. 2020, https://arxiv.org/abs/2005.10243, section 4."""
    similar, found = look.curve("train/positive_similarity"), look.curve("train/positive_top1")
    if not similar or not found or similar[0] < 0.995 or found[0] < 0.99:
        return None
    return Finding(
        "same_views",
        BAD,
        f"Before anything was learned, the two views of an item agreed already (cosine {similar[0]:.3f}).",
        normal="With the usual augmentation an untrained network gives 0.3 to 0.9.",
        fix="If both columns of the views below look alike, augment more (smaller crops, more colour jitter).",
    )


def diverged(look: Look) -> Finding | None:
    """Too high a rate shows as a loss that jumps and stays above where it began (Goyal et al. 2017,
    https://arxiv.org/abs/1706.02677, section 5.1, on warm-up and large rates)."""
    loss = look.loss
    if len(loss) < 6:
        return None
    start, end, most = look.part(loss, 0, 0.1), look.part(loss, 0.75, 1), max(loss)
    size = max(abs(start), 1e-3)
    guessed = look.guess is not None and most <= 1.3 * max(look.guess[0], start)
    if guessed or not (most > start + 1.0 * size or end > start + 0.5 * size) or end <= start + 0.05 * size:
        return None
    if look.method in (*PREDICTING, *QUEUE, *CENTERED) and most <= start + 2.0 * size and most <= 4.0:
        return None  # these may rise after their first fall: see `rises`
    return Finding(
        "diverged",
        BAD,
        f"The loss rose from {start:.3g} to as much as {most:.3g}, and ended at {end:.3g}.",
        normal="A falling loss with a little noise is normal.",
        fix="Lower optimizer.base_lr (by 10 to begin with), warm up longer, or set trainer.gradient_clip_val=1.0.",
    )


def rate(look: Look) -> Finding | None:
    """The same, seen in the gradient: a jump of its norm by orders of magnitude (Chen et al. 2021, MoCo v3,
    https://arxiv.org/abs/2104.02057, figure 4: spikes of the gradient come before dips of the accuracy)."""
    norms, scale = look.curve("train/grad_norm"), look.last("train/embedding_scale") or 1.0
    fix = "Lower optimizer.base_lr (by 10 to begin with), or set trainer.gradient_clip_val."
    if scale > 50:
        says = f"The embeddings grew to {scale:.0f} times their first size: the learning rate is too high."
        return Finding("rate", BAD, says, normal="They stay within a factor of a few.", fix=fix, unless=("not_finite",))
    if len(norms) < 6:
        return None
    usual, most = look.part(norms, 0, 1), max(norms[1:])
    if most < 50 * max(usual, 1e-6) and most < 1e4:
        return None
    return Finding(
        "rate",
        WATCH,
        f"The gradient jumped: its norm reached {most:.3g}, where {usual:.3g} is usual in this run.",
        normal="Norms within a factor of ten of each other are normal after the warm-up.",
        fix=fix,
        unless=("diverged", "not_finite"),
    )


def uniform(look: Look) -> Finding | None:
    """DINO's collapse to the uniform answer: the loss is log K and stays (issues 43 and 246 of facebookresearch/dino).
    Centering alone leads to uniform answers, sharpening alone to one prototype: section 5.3 of Caron et al. 2021,
    https://arxiv.org/abs/2104.14294."""
    if look.method not in CENTERED or not look.loss:
        return None
    entropy, most = look.last("train/teacher_entropy"), look.number("method", "projector", "out_dim")
    if entropy is None or most is None or len(look.loss) < 10:
        return None
    top = math.log(most)
    if entropy > 0.995 * top and look.part(look.loss, 0.75, 1) > 0.995 * top:
        says = f"The teacher answers every item alike: its entropy is the largest possible, {entropy:.2f}."
        fix = "Lower method.teacher_temperature (0.04) or optimizer.base_lr, or make method.projector.out_dim smaller."
        return Finding(
            "uniform", BAD, says, normal="The teacher's entropy falls well below log K in a sound run.", fix=fix
        )
    if entropy < 0.01 * top:
        says = f"The teacher puts all items on one prototype: its entropy is {entropy:.3f}."
        fix = "Raise method.teacher_temperature, and keep method.center_momentum at 0.9."
        return Finding("collapsed", BAD, says, normal="In a sound run the entropy stays well above 0.", fix=fix)
    return None


def collapsed(look: Look) -> Finding | None:
    """Complete collapse is a spread near 0 (SimSiam, Chen & He 2020, https://arxiv.org/abs/2011.10566, figure 2), or a
    scale near 0 (VICReg, https://arxiv.org/abs/2105.04906); dimensional collapse an effective rank near 1 (Jing et al.
    2021, https://arxiv.org/abs/2110.09348). The thresholds are those of `callbacks.collapse`. What predicts pixels has
    nothing that spreads its features, and begins with few directions: of it a low rank is no collapse."""
    std, rank = look.last("val/feature_std"), look.last("val/feature_rank")
    own, scale, own_rank = (look.last(f"train/embedding_{n}") for n in ("std", "scale", "rank"))
    fix = "Lower optimizer.base_lr; keep the BatchNorm of projector and predictor, the stop-gradient and the teacher."
    normal = "Vectors that point everywhere alike have 1; sound runs stay above 0.2."
    if std is not None and std < 0.1:
        says = f"Collapsed: all items get nearly the same features (spread {std:.3f})."
        return Finding("collapsed", BAD, says, normal=normal, fix=fix)
    if own is not None and own < 0.1 and look.method not in MASKED:
        says = f"Collapsed: all embeddings point the same way (spread {own:.3f})."
        return Finding("collapsed", BAD, says, normal=normal, fix=fix)
    same, other = look.last("train/positive_similarity"), look.last("train/negative_similarity")
    if same is not None and other is not None and other > 0.9 and same - other < 0.05:
        says = f"Collapsed: different items are as alike (cosine {other:.3f}) as two views of one ({same:.3f})."
        return Finding(
            "collapsed", BAD, says, normal="Different items end near 0, views of one item well above.", fix=fix
        )
    if scale is not None and scale < 0.05:
        says = f"Collapsed: the embeddings shrink to one point (scale {scale:.3f} of the first look's)."
        fix = (
            "Give the term that keeps embeddings apart more weight (method.loss.variance of VICReg), or lower the rate."
        )
        return Finding("collapsed", BAD, says, normal="The scale stays within a factor of a few.", fix=fix)
    low = min((value for value in (rank, own_rank) if value is not None), default=None)
    if low is not None and low < 2.0 and len(look.loss) > 3 and look.method not in MASKED:
        says = f"Dimensional collapse: the vectors vary along about one direction (effective rank {low:.1f})."
        fix = "Make the views differ more, lower the temperature or optimizer.base_lr, or enlarge the batch."
        return Finding(
            "collapsed", BAD, says, normal="Sound runs use several directions from the first epochs on.", fix=fix
        )
    return None


def low_rank(look: Look) -> Finding | None:
    """Few directions in use; rank and quality go together (RankMe, Garrido et al. 2023,
    https://arxiv.org/abs/2210.02885)."""
    rank, width = look.last("val/feature_rank"), look.about.get("out_dim")
    if rank is None or rank >= 3.0 or not isinstance(width, int) or width < 32:
        return None
    return Finding(
        "low_rank",
        WATCH,
        f"The features use few directions: effective rank {rank:.1f} of {width}.",
        normal="What predicts pixels begins so, and its features are read out better by a linear probe than by kNN."
        if look.method in MASKED
        else "The rank of features grows during training, or settles well above the number of a few.",
        fix="Compare with a longer run; stronger views, a larger batch or a lower rate help where it stays low.",
        unless=BROKEN,
    )


def at_chance(look: Look) -> Finding | None:
    """A contrastive loss at the logarithm of its candidates is that of a guess (issue 12 of facebookresearch/moco: "the
    random guess is log(65536)"); van den Oord et al. 2018, eq. 5, https://arxiv.org/abs/1807.03748."""
    if look.guess is None or len(look.loss) < 8 or look.method in CENTERED:
        return None
    (guess, formula), end = look.guess, look.part(look.loss, 0.75, 1)
    if end < 0.97 * guess:
        return None
    task = "solves its task no better" if look.method in FIXED else "tells no better which views belong together"
    return Finding(
        "at_chance",
        WATCH if look.method in FIXED else BAD,
        f"The loss ends at {end:.3g}, and guessing gives {guess:.3g} ({formula}): the network {task}.",
        normal="It falls clearly below this within the first epochs, sooner with a small batch.",
        fix="Weaken the augmentation (larger crops), lower the temperature, or check optimizer.base_lr.",
        unless=BROKEN,
    )


def still(look: Look) -> Finding | None:
    """A loss that does not move: the rate is far too small, the gradients are zero, or nothing can be learned."""
    if len(look.loss) < 8:
        return None
    start, end = look.part(look.loss, 0, 0.25), look.part(look.loss, 0.75, 1)
    spread = max(look.loss) - min(look.loss)
    change = abs(end - start)
    if change > 0.01 * max(abs(start), 1e-3) or spread > 0.15 * max(abs(start), 1e-3):
        return None
    return Finding(
        "still",
        WATCH,
        f"The loss did not move: {start:.4g} in the first quarter, {end:.4g} in the last.",
        normal="Most of the fall comes in the first epochs.",
        fix="Raise optimizer.base_lr (the learning rate is drawn below), and check that train/grad_norm is not 0.",
        unless=(*BROKEN, "at_chance"),
    )


def rises(look: Look) -> Finding | None:
    """Losses that rise for a while in sound runs: MoCo's while the queue fills (the author in issue 9 of
    facebookresearch/moco), those without negatives after their first fall (issue 31 of bytedance/ibot)."""
    if len(look.loss) < 8 or look.method not in (*QUEUE, *PREDICTING, *CENTERED):
        return None
    start, lowest, end = look.part(look.loss, 0, 0.1), min(look.loss), look.part(look.loss, 0.75, 1)
    if max(look.loss) > 1.1 * start and look.method in QUEUE:
        says = f"The loss first rose (from {start:.3g} to {max(look.loss):.3g})."
        normal = "That is normal for MoCo: real keys replace the noise that the queue begins with."
        return Finding("rises", OK, says, normal=normal, unless=(*BROKEN, "at_chance"))
    if lowest >= 0 and end > 1.15 * lowest and look.method not in QUEUE:
        says = f"The loss rose again after its first fall (lowest {lowest:.3g}, now {end:.3g})."
        normal = "That is normal here: the targets get harder as the teacher learns. Judge by kNN and spread instead."
        return Finding("rises", OK, says, normal=normal, unless=BROKEN)
    return None


RULES: tuple[Rule, ...] = (
    not_finite, normalisation, same_views, diverged, rate, uniform, collapsed, at_chance, still, low_rank, leak,
    not_above_random, below_naive, falling, slower, sound, learning, rises, rising,
)  # fmt: skip
