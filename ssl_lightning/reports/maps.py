"""Maps of features: the plane that shows them best, by PCA, UMAP or t-SNE."""

from collections.abc import Sequence

import numpy as np

from ssl_lightning.core.errors import UserError

MAPS = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
PACKAGES = {"umap": "umap-learn", "tsne": "scikit-learn"}


def available() -> list[str]:
    """The maps whose packages are installed, PCA first."""
    from importlib.util import find_spec

    return ["pca", *(name for name, module in (("umap", "umap"), ("tsne", "sklearn")) if find_spec(module))]


def placed(features: np.ndarray, name: str) -> np.ndarray:
    """Features (N, R) -> places (N, 2), the same in each call.

    Raises:
        UserError: the package of the map is not installed, or there is no such map.
    """
    x = features.astype(np.float32)
    if name == "pca":  # they lie on their principal axes already
        return x[:, :2] if x.shape[1] > 1 else np.pad(x, ((0, 0), (0, 2 - x.shape[1])))
    if name not in MAPS:
        raise UserError(f"there is no map '{name}'; choose from {', '.join(MAPS)}")
    if name not in available():
        raise UserError(f"the map {MAPS[name]} needs {PACKAGES[name]}; pip install 'ssl-lightning[maps]'")
    return _umap(x) if name == "umap" else _tsne(x)


def added(features: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{map_<name>: (N, 2) float16} for `report.npz`, of all maps but PCA, which is there at once."""
    few = len(features) < 10
    return {f"map_{name}": placed(features, name).astype(np.float16) for name in names if name != "pca" and not few}


def _umap(x: np.ndarray) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, and that a seed means one thread
        import umap

        made = umap.UMAP(n_neighbors=min(15, len(x) - 1), metric="cosine", random_state=0).fit_transform(x)
    return np.asarray(made)


def _tsne(x: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(x) - 1) / 4)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x))
