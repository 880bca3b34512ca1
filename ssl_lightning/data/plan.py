"""`Views`: the base of what says how training views are drawn. Each modality has its own."""

from __future__ import annotations


class Views:
    """How many views of an item are drawn, and what each is for.

    What a config may name under `views` descends from this class. A data module draws them in `training_views`.

    >>> class Pairs(Views):
    ...     def roles(self) -> tuple[str, ...]:
    ...         return "global", "global"
    """

    def roles(self) -> tuple[str, ...]:
        """One word for each view of an item, in order: "global", "local"; see `core.batch.Batch`."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, ...]:
        """The size of each view for a network that cares about it (for an image its side); () where none does."""
        return ()

    def without(self) -> dict[str, Views]:
        """For each key that has an effect the same views without it; what `stage=doctor` switches off in turn."""
        return {}
