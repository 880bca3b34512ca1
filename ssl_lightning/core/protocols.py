"""What a method may ask of a network. Nothing here is inherited from: a network of anybody's fits by what it has.

- `Encoder`: items -> features (B, out_dim). Enough for every method that compares whole items.
- `TokenEncoder`: also gives its tokens, with some patches left out or hidden. For masked and self-distilling methods.
- `MapEncoder`: also gives the map that its features are the mean of. For dense methods.

A method asks once, by a function (`token_encoder(backbone, "MAE")`), and gets a typed encoder or a `UserError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from torch import Tensor, nn

from ssl_lightning.core.as_map import MapOfImages, MapOfTokens
from ssl_lightning.core.errors import UserError

Size = int | Sequence[int]  # of a view along each axis, in pixels or samples; one number for all axes


class Encoder(Protocol):
    """Items x (B, ...) -> features (B, out_dim). Nothing is inherited: a module with `out_dim` is one.

    >>> backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 64))
    >>> backbone.out_dim = 64
    """

    @property
    def out_dim(self) -> int: ...

    def __call__(self, x: Any) -> Tensor: ...


class TokenEncoder(Encoder, Protocol):
    """An encoder that cuts an item into N patches on a grid, and makes a token (D = `token_dim`) of each.

    R = `num_prefix_tokens` tokens that belong to no patch stand before them: the class token, if there is one, is the
    first. Patches are counted along the grid, the last axis fastest.

    >>> from ssl_lightning.models import ViT
    >>> net = ViT(image_size=32, patch_size=8, dim=48, depth=1, heads=3)
    >>> net.grid, net.token_dim, net.num_prefix_tokens
    ((4, 4), 48, 1)
    """

    @property
    def token_dim(self) -> int: ...

    @property
    def grid(self) -> tuple[int, ...]:
        """How many patches an item of the encoder's own size has along each of its 1, 2 or 3 axes."""

    @property
    def strides(self) -> tuple[int, ...]:
        """How many pixels (samples) a patch covers along each axis."""

    @property
    def patch_dim(self) -> int:
        """C, how many values a patch has."""

    @property
    def num_prefix_tokens(self) -> int: ...

    @property
    def has_class_token(self) -> bool: ...

    def patchify(self, x: Tensor) -> Tensor:
        """Items -> the values of their patches (B, N, C)."""

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches (B, N, C) of items of the encoder's own size -> the items."""

    def tokens(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Items -> tokens (B, R + N, D) as the readout takes them.

        visible: (B, K) places of the patches that enter; nothing of the others is seen. (B, R + K, D) in this order.
        hidden, mask_token: (B, N) bool and (D,); the embedding of a hidden patch is replaced by the mask token.
        """

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens -> the first R (B, R, D), and those of the patches (B, N, D)."""

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, R + any, D) -> features (B, out_dim), as the call does."""

    def block_states(self, x: Tensor) -> list[Tensor]:
        """Items -> for each block what its MLP adds (B, R + N, D)."""

    def check_size(self, size: Size, own: bool = False) -> None:
        """Refuses views of a size that the encoder does not take; with `own`, of any but its own."""


class AttendingEncoder(TokenEncoder, Protocol):
    """A token encoder whose class token's look can be shown."""

    def attention(self, x: Tensor) -> Tensor:
        """Items -> how much the class token looks at each patch: (B, heads, *grid), sums at most 1 a head."""


class MapEncoder(Encoder, Protocol):
    """An encoder whose features are the mean of a map over its places.

    >>> from ssl_lightning.models import ConvNetSmall
    >>> ConvNetSmall(width=8).forward_features(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 32, 4, 4])
    """

    @property
    def strides(self) -> tuple[int, ...]:
        """How many pixels (samples) lie between two places, along each axis."""

    def feature_map(self, x: Tensor) -> Tensor:
        """Items -> the map (B, C, *places)."""


class Head(Protocol):
    """A head that says its width: (B, in_dim) -> (B, out_dim)."""

    @property
    def out_dim(self) -> int: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class ProjectingHead(Head, Protocol):
    """A head of scores that can give the vectors which it scores."""

    def project(self, x: Tensor) -> Tensor: ...


class PrototypeHead(ProjectingHead, Protocol):
    """One whose last layer can be kept from learning."""

    def forget_last_gradient(self) -> None: ...


class Centering(Protocol):
    """What keeps a teacher from giving one answer to all."""

    def sharpen(self, scores: Tensor, temperature: float) -> Tensor: ...

    def update(self, scores: Tensor) -> None: ...


_TOKENS = """token_dim grid strides patch_dim num_prefix_tokens has_class_token patchify unpatchify tokens split read
block_states check_size"""
TOKENS = tuple(_TOKENS.split())
VITS = "choose backbone=vit_tiny, vit_small or vit_base, or a plain ViT of timm (backbone=timm)"


def out_dim(network: nn.Module) -> int:
    """How wide the features of an encoder, or the output of a head, are. Raises UserError where it does not say."""
    found = getattr(network, "out_dim", None)
    if not isinstance(found, int) or isinstance(found, bool):
        name = type(network).__name__
        raise UserError(f"{name} does not say how wide its output is; give it an integer out_dim")
    return found


def has_tokens(network: nn.Module) -> bool:
    """Is this a `TokenEncoder`?"""
    return all(hasattr(network, name) for name in TOKENS)


def token_encoder(network: nn.Module, who: str = "this method") -> TokenEncoder:
    """The network as a `TokenEncoder`. Raises UserError where it is none."""
    if not has_tokens(network):
        some = [name for name in TOKENS if hasattr(network, name)]
        lacks = [name for name in TOKENS if not hasattr(network, name)]
        if "tokens" in some:  # somebody's own, not yet whole
            raise UserError(f"{who} needs of its network what TokenEncoder lists; it lacks {', '.join(lacks)}")
        raise UserError(f"{who} hides patches of a ViT; {VITS}")
    return cast(TokenEncoder, network)


def attends(network: nn.Module) -> bool:
    """Can the look of this network's class token be shown?"""
    return has_tokens(network) and bool(getattr(network, "has_attention", hasattr(network, "attention")))


def has_map(network: nn.Module) -> bool:
    """Does `map_encoder` take this network?"""
    return has_tokens(network) or hasattr(network, "feature_map") or hasattr(network, "forward_features")


def map_encoder(network: nn.Module, who: str = "this method") -> MapEncoder:
    """The network as a `MapEncoder`. Raises UserError where it is none.

    Taken are also token encoders, and networks of images with `forward_features` (timm's name for it).
    """
    if hasattr(network, "feature_map"):
        if not hasattr(network, "strides"):
            raise UserError(f"{who} needs of its network what MapEncoder lists; it lacks strides")
        return cast(MapEncoder, network)
    if has_tokens(network):
        return MapOfTokens(network)
    if hasattr(network, "forward_features"):
        return MapOfImages(network)
    raise UserError(f"{who} needs a ViT, or a network with a feature map (feature_map, or forward_features)")


def patch_sides(network: nn.Module) -> tuple[int, ...]:
    """Sides of the patches that a network cuts its items into; () where it cuts none."""
    if has_tokens(network):
        return token_encoder(network).strides
    side = getattr(network, "patch_size", None)  # torchvision's ViT, for example
    return (side,) if isinstance(side, int) else tuple(side) if isinstance(side, tuple) else ()


def check_size(network: nn.Module, size: Size) -> None:
    """Refuses views of a size that the network says it does not take."""
    if has_tokens(network):
        token_encoder(network).check_size(size)
        return
    check_divides(patch_sides(network), size)
    check_strict(network, size)


def check_divides(sides: Sequence[int], size: Size, unit: str = "px") -> None:
    """Refuses views that are not cut into whole patches."""
    for side, length in zip(sides, per_axis(size, len(sides))):
        if length % side:
            words = f"patches of {shown(sides)} {unit} do not divide views of {shown(size)} {unit}"
            raise UserError(f"{words}; change one of the two (views.*)")


def check_strict(network: Any, size: Size) -> None:
    """Refuses views of another size for a network of timm that takes one size only (ViT, Swin, mixers)."""
    embed = getattr(network, "patch_embed", None)
    own = getattr(embed, "img_size", None)
    if getattr(embed, "strict_img_size", False) and own is not None and per_axis(size, len(own)) != tuple(own):
        words = f"this ViT takes one image size only ({shown(own)} px)"
        raise UserError(f"{words}; for local views give +backbone.dynamic_img_size=true")


def per_axis(size: Size, axes: int) -> tuple[int, ...]:
    """A size along each of so many axes."""
    return (size,) * axes if isinstance(size, int) else tuple(size)


def shown(size: Size) -> str:
    """A size in words: 16, or 16 x 8 where the axes differ."""
    sides = (size,) if isinstance(size, int) else tuple(size)
    return str(sides[0]) if len(set(sides)) == 1 else " x ".join(map(str, sides))


def projecting_head(head: nn.Module) -> ProjectingHead:
    """The head as one with `project`. Raises UserError for another."""
    return cast(ProjectingHead, _having(head, "project"))


def prototype_head(head: nn.Module) -> PrototypeHead:
    """The head as one whose prototypes can be kept from learning. Raises UserError for another."""
    return cast(PrototypeHead, _having(head, "project", "forget_last_gradient"))


def centering(module: nn.Module) -> Centering:
    """The module as what keeps a teacher's answers apart. Raises UserError for another."""
    return cast(Centering, _having(module, "sharpen", "update"))


def _having(module: nn.Module, *names: str) -> nn.Module:
    lacks = [name for name in names if not hasattr(module, name)]
    if lacks:
        raise UserError(f"{type(module).__name__} has no {' and no '.join(lacks)}; choose another class for it")
    return module
