"""task=transcribe: a text for each item. Connectionist temporal classification; character and word error rates.

Graves et al. 2006, "Connectionist Temporal Classification", https://www.cs.toronto.edu/~graves/icml_2006.pdf.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.text import CharErrorRate, WordErrorRate

from ssl_lightning.core.errors import UserError
from ssl_lightning.core.protocols import map_encoder
from ssl_lightning.core.task import TEXTS, Reads, Reduction, Task
from ssl_lightning.data.broken import named, say
from ssl_lightning.evaluation.features import evaluating

BLANK = 0
SHOWN = 60  # characters of a text in a message
LONGER = "give longer views (data.length, data.image_size), or a network of fewer layers (backbone.layers)"


class Transcribe(Task):
    """Targets (B,) int64 are numbers of texts, the names of the data's classes; outputs (B, L, 1 + K) are logits.

    K characters are those of the training texts, in order; output 0 is the blank. A character that only test texts
    have counts as an error. Characters are code points of texts in composed form (Unicode's NFC). The L steps are those
    of the network's map: of sound its steps in time, of images its columns, the mean over rows. All steps count, so a
    view must hold the whole item; what fills it up is heard as blanks.
    """

    main, higher, worst = "cer", False, float("inf")
    reads: ClassVar[Reads] = TEXTS
    takes = "a text"
    stages: ClassVar[tuple[str, ...]] = ("finetune",)
    whole_items = True
    listed_in = "texts.csv"
    texts: tuple[str, ...] = ()

    def prepare(self, names: Sequence[str], targets: Tensor) -> Self:
        """`names`: the texts that the training `targets` (N,), and those of any other split, are numbers of."""
        self.texts = tuple(unicodedata.normalize("NFC", name) for name in names)
        self.names = tuple(sorted(set("".join(self._texts(targets.unique())))))
        return self

    def check(self, targets: Tensor, split: str, noun: str) -> None:
        texts = self._texts(targets)
        if not self.names or not any(texts):
            raise UserError(f"no {split} {noun} has a text, and task=transcribe takes one for each; check data.labels")
        strange = [text for text in texts if not set(text) <= set(self.names)]
        if strange:
            characters = sorted(set("".join(strange)) - set(self.names))
            say(
                f"{len(strange)} of {len(texts)} {split} texts have characters that no training text has "
                f"({named(map(repr, characters), 8)}), which count as errors."
            )

    def check_network(self, backbone: nn.Module, view: Any, targets: Mapping[str, Any], noun: str) -> None:
        """Refuse a network of fewer steps than a training text needs; say how many test texts it cannot spell."""
        with evaluating(backbone), torch.no_grad():
            steps = self.features(backbone, view).shape[1]
        self._check_steps(steps, [self.spelled(text) for text in self._texts(targets["training"].unique())])
        texts = self._texts(targets["test"])
        long = [text for text in texts if needed(text) > steps]
        if long:
            most = max(map(needed, long))
            say(
                f"{len(long)} of {len(texts)} test texts need more than the {steps} steps of this network (up to "
                f"{most}), so they cannot be read without errors; {LONGER}."
            )

    def _texts(self, targets: Tensor) -> list[str]:
        return [self.texts[target] for target in targets.tolist()]

    def features(self, backbone: nn.Module, x: Any) -> Tensor:
        """(B, L, D), the steps of the network's map."""
        steps = map_encoder(backbone, "task=transcribe").feature_map(x)  # (B, D, L), of images (B, D, H, L)
        return (steps.mean(2) if steps.ndim == 4 else steps).transpose(1, 2)

    def head(self, in_dim: int) -> nn.Module:
        """(B, L, in_dim) -> (B, L, 1 + K): a linear layer on each step."""
        return nn.Sequential(nn.Linear(in_dim, 1 + len(self.names)))

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
        """-log p(text) of each item, a character: the sum over all paths through the steps that read as the text.

        Raises:
            UserError: fewer steps than a text needs (its characters, and a blank between two that are the same).
        """
        if smoothing:
            raise UserError("label smoothing is of classes, and task=transcribe has none; set stage.label_smoothing=0")
        found = [self.spelled(text) for text in self._texts(targets)]
        lengths = torch.tensor([len(one) for one in found])
        self._check_steps(outputs.shape[1], found)
        steps = torch.full((len(found),), outputs.shape[1])
        symbols = torch.tensor([symbol for one in found for symbol in one], device=outputs.device)
        logs = outputs.log_softmax(dim=2).transpose(0, 1)  # (L, B, 1 + K)
        each = F.ctc_loss(logs, symbols, steps, lengths, blank=BLANK, reduction="none")  # (B,)
        each = each / lengths.clamp(min=1).to(each)
        return each.mean() if reduction == "mean" else each.sum()

    def _check_steps(self, steps: int, texts: Sequence[Sequence[int]]) -> None:
        longest = max(texts, key=needed, default=())
        if needed(longest) > steps:
            text = "".join(self.names[symbol - 1] for symbol in longest)
            text = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
            raise UserError(
                f"the text {text!r} needs {needed(longest)} steps, and this network gives {steps}; {LONGER}"
            )

    def spelled(self, text: str) -> list[int]:
        """The symbols 1..K of a text's characters."""
        return [self.names.index(character) + 1 for character in text]

    def read(self, outputs: Tensor) -> list[str]:
        """The text of the likeliest path: of each step the likeliest symbol, repetitions as one, without blanks."""
        paths = (row.unique_consecutive() for row in outputs.argmax(dim=2))
        return ["".join(self.names[i - 1] for i in path.tolist() if i != BLANK) for path in paths]

    def metrics(self) -> MetricCollection:
        return MetricCollection({"cer": CharErrorRate(), "wer": WordErrorRate()}, compute_groups=False)

    def measurable(self, outputs: Tensor, targets: Tensor) -> tuple[list[str], list[str]]:
        return self.read(outputs), self._texts(targets)

    def word(self, value: float) -> str:
        return f"CER {100 * value:.1f} %"

    def predict(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The text of each item."""
        return [{"text": text} for text in self.read(outputs)]

    def matched(self, names: Sequence[str], targets: Tensor) -> Tensor:
        """The texts of other data are numbered anew, and the task reads these."""
        self.texts = tuple(unicodedata.normalize("NFC", name) for name in names)
        return targets

    def listed(self, outputs: Tensor, targets: Tensor) -> list[dict[str, Any]]:
        """The text of each item, what it was read as, and the number of edits between them, in characters."""
        pairs = zip(self._texts(targets), self.read(outputs), strict=True)
        return [{"text": text, "read_as": read, "errors": edits(read, text)} for text, read in pairs]


def edits(read: str, text: str) -> int:
    """The characters to insert, remove or replace, as few as can be."""
    count = CharErrorRate()
    count.update([read], [text])
    return int(count.errors)


def needed(text: Sequence[Any]) -> int:
    """How many steps a text takes at least: its characters, and a blank between two that are the same."""
    return len(text) + sum(a == b for a, b in pairwise(text))
