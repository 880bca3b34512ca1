"""A model that a training on labels left, for the user's own code: `load_model` and `predict`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl_lightning.modalities import predicting
from ssl_lightning.modalities.predicting import Predictions
from ssl_lightning.runs.model import Model
from ssl_lightning.runs.opened import Run


def load_model(ref: str | Path | Run, trusted: Iterable[str] = ()) -> Model:
    """The model that a training on labels left: backbone, head, class names and preprocessing, in eval mode.

    >>> model = load_model("runs/byol-folder/finetune-folder")  # doctest: +SKIP
    >>> model(model.transform("a.jpg")[None]).shape, model.classes  # doctest: +SKIP
    (torch.Size([1, 3]), ['bird', 'cat', 'dog'])

    Args:
        ref: the run of a stage=finetune or stage=linear, or its `model.safetensors`.
        trusted: your own packages, where the class of its backbone or task lives in one.

    Returns:
        A plain nn.Module, a batch of inputs -> outputs (B, K), with `.classes`, `.transform` and `.card` as a backbone
        has them, `.backbone`, `.task`, and `.predict(items)`: files, a folder or images -> a list of what it says of
        each.

    Raises:
        UserError: there is no model, it is damaged, or it names a class that is not trusted.
    """
    where, packages = (ref.path, ref.trusted) if isinstance(ref, Run) else (ref, ())
    return predicting.load(where, ((trusted,) if isinstance(trusted, str) else tuple(trusted)) or packages)


def predict(
    model: Model | Run | str | Path,
    items: Any,
    *,
    batch_size: int = 64,
    device: str | None = None,
    trusted: Iterable[str] = (),
) -> Predictions:
    """What a model says of files, a folder or images; in memory, without a run of its own.

    Args:
        model: of `load_model`, or the run of a stage=finetune or stage=linear, or its `model.safetensors`.
        items: a file; a folder, of which every file is taken at any depth; or a list of files, PIL images, arrays or
            tensors; of audio files, or (wave, rate).
        batch_size: items at a time.
        device: to compute on, such as "cuda"; None: where the model is.
        trusted: as in `load_model`.

    Returns:
        The predictions, in order, with `.rows`, `.classes`, `.probabilities` and `.to_csv(path)`.

    Raises:
        UserError: there is no model, or nothing to predict. A file that cannot be read is no error: a line and its row
            say so.

    Example:
        >>> found = predict("runs/byol-folder/finetune-folder", "holidays")  # doctest: +SKIP
        >>> found.rows[0]  # doctest: +SKIP
        {'path': 'holidays/a.jpg', 'class': 'dog', 'probability': 0.93}
    """
    learned = model if isinstance(model, Model) else load_model(model, trusted)
    return predicting.predictions(learned, items, batch_size, device)
