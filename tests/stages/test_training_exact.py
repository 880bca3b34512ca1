"""Fine-tuning and the augmented linear probe, stopped in any batch: the same pick, the same accuracy, equal files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.callbacks.interrupt import Interrupt
from ssl_lightning.core.errors import Interrupted
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import training
from ssl_lightning.tasks.classify import Classify
from tests.equal_runs import assert_equal_runs
from tests.stages.test_finetune_stage import training_recipe
from tests.stages.tiny_run import TinyData, a_trainer
from tests.test_exact import told_at

pytestmark = pytest.mark.long

EPOCHS = 3


def train(folder: Path, frozen: bool = False) -> training.Trained:
    """3 epochs of 3 batches; the checkpoint is picked on a split where the backbone is trained, too."""
    data = TinyData(labels_per_class=20, num_workers=0)
    rows, held = training.picking_split(data, 0 if frozen else 0.2)
    rows = rows[:48]
    torch.manual_seed(0)
    module = training.Finetuner(
        ConvNetSmall(4), Classify.of(3), training_recipe(), layer_decay=0.8, mixup=0.3, frozen=frozen
    )  # type: ignore[arg-type]
    labelled = training.LabelledData(data, rows, held, training.crop_and_flip(16, (0.3, 1.0)), 16)
    plain = a_trainer(folder.parent)

    def factory(callbacks: list[Any], **overrides: Any) -> Any:
        return plain(callbacks=[*callbacks, Interrupt()], **overrides)

    return training.train_and_test(module, labelled, factory, folder, EPOCHS, 0)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_signal_in_any_batch(frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole" / "part", frozen)
    for batch in (1, 2, 3, 5, 6, 9):
        folder = tmp_path / str(batch) / "part"
        with told_at(batch, monkeypatch), pytest.raises(Interrupted):
            train(folder, frozen)
        again = train(folder, frozen)
        assert (again.scores, again.steps, again.images) == (whole.scores, whole.steps, whole.images), batch
        assert_equal_runs(tmp_path / "whole", tmp_path / str(batch))


def test_a_frozen_backbone_stays_as_it_is_whoever_asks_it_to_train(tmp_path: Path) -> None:
    module = training.Finetuner(ConvNetSmall(4), Classify.of(3), training_recipe(), frozen=True)  # type: ignore[arg-type]
    for _ in range(2):
        module.train()
        assert module.training
        assert module.head.training
        assert module.norm.training
        assert not any(part.training for part in module.backbone.modules())
        module.eval()


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("batch", [7, None])
def test_a_damaged_file_leads_to_the_same_end(
    name: str, damage: str, batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Stopped in the last epoch, or finished but for the test."""
    whole, folder = train(tmp_path / "whole" / "part"), tmp_path / "cut" / "part"
    if batch is None:
        train(folder)
    else:
        with told_at(batch, monkeypatch), pytest.raises(Interrupted):
            train(folder)
    DAMAGE[damage](folder / "checkpoints" / name)
    again = train(folder)
    assert (again.scores, again.steps, again.images) == (whole.scores, whole.steps, whole.images)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
    word = "doing this training again" if name == "best.ckpt" else "going on from the one before it"
    assert capsys.readouterr().err.count(word) == 1
