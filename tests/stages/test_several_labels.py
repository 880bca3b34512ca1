"""Several labels for each image: what needs one says so in a line, the rest works; and data of another kind."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_lightning.callbacks.labels import has_labels
from ssl_lightning.core.errors import UserError
from ssl_lightning.evaluation.features import Features
from ssl_lightning.modalities.image.images import ImageSet
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.stages import embed
from ssl_lightning.stages.common import same_items
from ssl_lightning.stages.judging import judge_backbone, need_labels
from ssl_lightning.tasks.multilabel import MultiLabel
from ssl_lightning.tasks.regress import Regress
from tests.stages.tiny_run import TinyData, a_folder, a_run, a_trainer, judged


class Several(TinyData):
    """Three labels for each image."""

    def __init__(self, **loading: Any) -> None:
        super().__init__(20, 10, labelled=False, **loading)

    def load(self) -> tuple[ImageSet, ImageSet]:
        train, test = super().load()
        names = ("old", "wet", "red")
        return (
            train.with_targets(torch.ones(20, 3, dtype=torch.int8), names),
            test.with_targets(torch.eye(10, 3, dtype=torch.int8), names),
        )


@pytest.mark.parametrize("stage", ["knn", "linear", "finetune"])
def test_stages_that_take_one_label_say_so(stage: str) -> None:
    with pytest.raises(
        UserError, match=rf"stage={stage} takes one label per image, and the data has 3: .*label_column"
    ):
        need_labels(Several(), stage)


def test_quality_alone_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = judge_backbone(ConvNetSmall(4), ConvNetSmall(4), Several(), torch.device("cpu"))
    assert set(found) == {"quality", "verdict"}
    assert "they take one label per image, and the data has 3" in capsys.readouterr().err


def test_watchers_are_off_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ssl_lightning"):
        assert not has_labels(SimpleNamespace(datamodule=Several()), "kNN")  # type: ignore[arg-type]
    assert "kNN is off: it takes one label per image, and the data has 3" in caplog.text


def test_embed_writes_them_all(tmp_path: Path) -> None:
    run = a_folder(tmp_path / "out")
    embed.run(judged(a_run(tmp_path / "run")), Several(), a_trainer(tmp_path), run, formats=("npz", "parquet"))
    with np.load(run.path / "features_test.npz") as found:
        assert np.array_equal(found["targets"], np.eye(10, 3, dtype=np.int8))
        assert found["target_names"].tolist() == ["old", "wet", "red"]


def test_a_stage_scales_images_as_the_run_did(tmp_path: Path) -> None:
    data, found = TinyData(), judged(a_run(tmp_path / "run"))
    found.card["value_range"] = [-1024, 3071]
    same_items(found, data)
    assert data.value_range == (-1024, 3071)
    data.value_range = (0.0, 1.0)
    same_items(found, data)
    assert data.value_range == (0.0, 1.0)
    with pytest.raises(UserError, match="takes images of 3 channels, and the data has 1"):
        same_items(found, TinyData(channels=1, mean=(0.4,), std=(0.3,)))


class Constant(TinyData):
    """Numbers that are all the same."""

    def load(self) -> Any:
        for images in (found := super().load()):
            images.targets, images.target_names = torch.full((len(images.labels), 1), 7.0), ("age",)
        return found


def test_labels_that_teach_nothing_do_not_end_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    found = judge_backbone(ConvNetSmall(4), ConvNetSmall(4), Constant(40, 20), torch.device("cpu"), task=Regress())
    assert set(found) == {"quality", "verdict"}
    assert "No kNN and no linear probe: all labelled training images have the same number" in capsys.readouterr().err
    with pytest.raises(UserError, match="same number"):
        need_labels(Constant(40, 20), "knn", Regress())


def test_labels_of_the_test_split_are_checked_too() -> None:
    class NoneInTest(Several):
        def load(self) -> tuple[ImageSet, ImageSet]:
            train, test = super().load()
            return train, test.with_targets(torch.zeros(10, 3, dtype=torch.int8), ("old", "wet", "red"))

    with pytest.raises(UserError, match="no test image has any of the labels"):
        need_labels(NoneInTest(), "knn", MultiLabel())


def test_a_target_named_as_a_column_of_the_table_leaves_that_column(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    source = Several().probe_set
    source = source.with_targets(source.targets, ("features", "label", "red"))
    with embed.written([tmp_path / "a.parquet"]) as files:
        files[0].add(Features(torch.ones(20, 4), source.labels, torch.arange(20)), source, "train")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["features"][0].as_py() == [1.0] * 4
    assert table["label"].to_pylist() == [-1] * 20
    assert table["target_features"].to_pylist() == table["red"].to_pylist() == [1] * 20
