"""How images are fetched: decoded ones by one index operation, files one by one with crops or whole views."""

from torch import Tensor

from ssl_lightning.data.loader import BatchFetch, Fetch, SampleFetch
from ssl_lightning.modalities.image.images import ArrayImages, ImageSet
from ssl_lightning.modalities.image.views import EvalView


class EvalCrop:
    """The evaluation crop as a transform of `SampleFetch`; nothing in it is random."""

    def __init__(self, view: EvalView):
        self.view = view

    def draw(self, indices: Tensor, epoch: int) -> list[None]:
        return [None] * len(indices)

    def apply(self, image: Tensor, drawn: None) -> Tensor:
        return self.view.crop(image)


def eval_fetch(images: ImageSet, view: EvalView) -> Fetch:
    """Fetches uint8 images of the evaluation view's size; whole batches at once when no image needs resizing."""
    if isinstance(images, ArrayImages) and view.leaves_alone(*images.images.shape[1:3]):
        return BatchFetch(images)
    return SampleFetch(images, EvalCrop(view))
