"""The rules of `health` about results, speed and what is as it should be; see `rules`."""

from ssl_lightning.core.finding import BAD, OK, WATCH, Finding
from ssl_lightning.reports.look import Look

BROKEN = ("not_finite", "diverged", "rate", "collapsed", "uniform", "normalisation", "same_views")


def below_naive(look: Look) -> Finding | None:
    """Features must beat what needs no network; the same kNN on raw pixels is a baseline that is easily left out."""
    mine, names = look.result("knn_top1"), ("raw_pixels", "naive")
    others = [value for name in names if (value := look.baseline(name, "knn_top1")) is not None]
    if mine is None or not others or mine >= others[0] - look.noise(others[0]) / 2:
        return None
    what = "raw pixels" if look.baseline("raw_pixels", "knn_top1") is not None else "naive features"
    return Finding(
        "below_naive",
        WATCH,
        f"kNN on the features finds {100 * mine:.1f} %, and on {what} {100 * others[0]:.1f} %.",
        normal="After a full training the features are well above; in the first minutes of one they may not be.",
        fix="Train longer (trainer.max_epochs=...), then look at the augmentation and the rate.",
        unless=BROKEN,
    )


def not_above_random(look: Look) -> Finding | None:
    """The same network with random weights is the floor: what training added lies above it."""
    pairs = [(look.result(key), look.baseline("random_init", key)) for key in ("knn_top1", "linear_top1")]
    known = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    if not known or any(mine > other + look.noise(other) for mine, other in known):
        return None
    mine, other = known[0]
    return Finding(
        "not_above_random",
        WATCH,
        f"Training added nothing that shows: {100 * mine:.1f} % against {100 * other:.1f} % with random weights.",
        normal="Even short trainings end above random weights.",
        fix="Train longer; if it stays so, look at the loss, the views and the rate.",
        unless=BROKEN,
    )


def falling(look: Look) -> Finding | None:
    """A loss that improves while kNN worsens: the task is solved by what does not help (shortcuts, Robinson et al.
    2021, https://arxiv.org/abs/2106.11230), or the last epochs overfit."""
    knn = look.curve("val/knn_top1")
    if len(knn) < 4 or len(look.loss) < 8:
        return None
    best, end = max(knn), sum(knn[-2:]) / 2
    if best - end < max(2 * look.noise(best), 0.03) or look.part(look.loss, 0.75, 1) > look.part(look.loss, 0.25, 0.5):
        return None
    return Finding(
        "falling",
        WATCH,
        f"kNN fell from {100 * best:.1f} % to {100 * end:.1f} % while the loss kept falling.",
        normal="Both improve together; small dips are noise.",
        fix="The network may solve the task by a shortcut (colour, position, noise): vary in the views what it could "
        "use.",
        unless=BROKEN,
    )


def rising(look: Look) -> Finding | None:
    """kNN that still rises at the end: 1000 epochs are usual on CIFAR, and longer is better on ImageNet, too (MoCo v2,
    https://arxiv.org/abs/2003.04297, table 1: 200 against 800 epochs)."""
    knn = look.curve("val/knn_top1")
    if not look.done or len(knn) < 5:
        return None
    third = max(2, len(knn) // 3)
    before, end = max(knn[:-third]), sum(knn[-third:]) / third
    if end <= before + max(0.5 * look.noise(before), 0.003):
        return None
    return Finding(
        "rising",
        OK,
        f"kNN was still rising at the end ({100 * before:.1f} % earlier, {100 * end:.1f} % in the last epochs).",
        normal="Self-supervised training is long: hundreds of epochs are usual.",
        fix="Train longer: the same command with a larger trainer.max_epochs goes on from here.",
        unless=BROKEN,
    )


def leak(look: Look) -> Finding | None:
    """Near-duplicates between training and test make results look better than they are (Barz & Denzler 2020,
    https://arxiv.org/abs/1902.00423: 3.3 % of CIFAR-10's test images, 10 % of CIFAR-100's)."""
    leaks, items = look.about.get("leaks"), look.about.get("items")
    if not isinstance(leaks, int) or not isinstance(items, int) or not leaks or not items:
        return None
    share = leaks / items
    return Finding(
        "leak",
        BAD if share >= 0.01 else WATCH,
        f"{leaks} of {items} test items that were looked at have a near-duplicate in the training set.",
        normal="None, or well under one in a hundred.",
        fix="The results are better than they should be: remove one of each pair (shown below), or split by group.",
    )


def slower(look: Look) -> Finding | None:
    """Throughput that falls off: another program on the machine, a disk that gets slower, a leak of memory."""
    speed = look.curve("train/images_per_second") or look.curve("train/samples_per_second")
    if len(speed) < 12:
        return None
    early, late = look.part(speed, 0.1, 0.4), look.part(speed, 0.8, 1)
    if late > 0.5 * early:
        return None
    return Finding(
        "slower",
        WATCH,
        f"Training slowed down: from {early:.0f} to {late:.0f} items a second.",
        normal="The speed of a run is steady after its first steps.",
        fix="Look for another program on this machine, a slow disk (data.num_workers), or memory that runs out.",
        timed=True,
    )


def sound(look: Look) -> Finding | None:
    """What a sound run looks like, said so that its absence is noticed."""
    std, rank = look.last("val/feature_std"), look.last("val/feature_rank")
    if std is None or rank is None:
        return None
    says = f"No collapse: the features differ (spread {std:.2f}, effective rank {rank:.1f})."
    return Finding(
        "sound",
        OK,
        says,
        normal="A spread above 0.1 and a rank above 2; both may fall a little at first.",
        unless=(*BROKEN, "low_rank"),
    )


def learning(look: Look) -> Finding | None:
    """A loss that falls."""
    if len(look.loss) < 4:
        return None
    start, end = look.part(look.loss, 0, 0.1), look.part(look.loss, 0.75, 1)
    if end >= start - 0.01 * abs(start):
        return None
    beside = f"; a guess gives {look.guess[0]:.2f}" if look.guess else ""
    says = f"The loss fell from {start:.3g} to {end:.3g}{beside}."
    return Finding("learning", OK, says, unless=(*BROKEN, "at_chance", "still"))
