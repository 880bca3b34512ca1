"""No value of any key ends in a traceback before training: it is refused in one line, or something is built from it."""

from pathlib import Path

import pytest

from ssl_lightning.cli.run import compose
from tests.every_key import outcome, wrong_values

SMALL = ["data.size=64", "data.test_size=16", "data.batch_size=16", "trainer.accelerator=cpu"]
CONFIGS = {
    "contrastive": [*SMALL, "backbone.width=4", "method.projector.hidden_dim=8", "method.projector.out_dim=4"],
    "audio": [
        *SMALL,
        *("data=tones", "backbone.width=4", "backbone.out_dim=8", "method.projector.hidden_dim=8"),
    ],
    "masked": [*SMALL, "method=mae", "backbone.dim=12", "backbone.depth=1", "method.decoder.dim=12"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_value_of_any_key_ends_in_a_traceback(name: str, tmp_path: Path) -> None:
    config = compose([*CONFIGS[name], f"runs_dir={tmp_path}"])
    found = {f"{key}={value!r}": outcome(wrong, key, tmp_path) for key, value, wrong in wrong_values(config)}
    worse = {word: what for word, what in found.items() if what not in ("refused", "built")}
    assert worse == {}
    assert sum(what == "refused" for what in found.values()) > len(found) / 2
