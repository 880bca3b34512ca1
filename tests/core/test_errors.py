"""The nearest right name."""

import pytest

from ssl_lightning.core.errors import Interrupted, UserError, did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "options", "right"),
    [
        ("mocco", ["simclr", "moco", "byol"], "moco"),
        ("MoCo", ["simclr", "moco"], "moco"),
        ("batchsize", ["batch_size", "image_size"], "batch_size"),
        ("zebra", ["simclr", "moco"], None),
        ("anything", [], None),
    ],
)
def test_nearest(name: str, options: list[str], right: str | None) -> None:
    assert nearest(name, options) == right
    assert did_you_mean(name, options) == (f" Did you mean '{right}'?" if right else "")


def test_interrupted_is_not_survived_like_an_error() -> None:
    assert Interrupted(75).code == 75
    assert not issubclass(Interrupted, Exception)
    assert issubclass(UserError, Exception)
