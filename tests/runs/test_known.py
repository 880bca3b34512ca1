"""Which networks are fed alike, by their cards."""

from typing import Any

import pytest

from ssl_lightning.modalities.audio.sources import Tones
from ssl_lightning.runs.known import fed_otherwise

IMAGES: dict[str, Any] = {
    "backbone": {"_target_": "a"},
    "method": "simclr",
    "image_size": 32,
    "mean": [0.5],
    "std": [0.2],
}


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", 64), ("mean", [0.4]), ("value_range", [0, 4095]), ("channels", 4)]
)
def test_images_of_another_size_or_range_are_fed_otherwise(key: str, value: Any) -> None:
    assert fed_otherwise(IMAGES, {**IMAGES, "method": "byol", "backbone": {}, "out_dim": 9, "sha256": "x"}) is None
    assert fed_otherwise(IMAGES, {**IMAGES, key: value}) == key


@pytest.mark.parametrize("changed", [{"hop": 0.02}, {"mels": 32}, {"sample_rate": 8000}, {"representation": "wave"}])
def test_sounds_of_another_spectrogram_are_fed_otherwise(changed: dict[str, Any]) -> None:
    def card(**more: Any) -> dict[str, Any]:
        return {"backbone": {}, "method": "simclr", **Tones(10, 10, num_workers=0, **more).card()}

    assert fed_otherwise(card(), {**card(), "method": "byol", "data": "other"}) is None
    assert fed_otherwise(card(), card(**changed)) == next(iter(changed))
    assert fed_otherwise(card(), IMAGES) == "modality"
