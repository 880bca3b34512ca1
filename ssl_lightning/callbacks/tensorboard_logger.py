"""TensorBoard: curves and the view mosaic in `<run_path>/tensorboard`."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger in one folder per run, so that a resumed run goes on in the same curves.

    Args:
        run_path: the run's folder.
    """

    def __init__(self, run_path: str | Path) -> None:
        super().__init__(save_dir=str(run_path), name="tensorboard", version="", default_hp_metric=False)
