"""Settings every test shares: one thread, fixed seed, no network, nothing written outside the test's own folder."""

import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

# Files that take a worker half a minute and more: begun last, one of them would keep it busy while the others idle.
LONG = ("test_resume.py", "test_every_method.py", "test_notebooks.py", "test_readme.py", "test_sweep.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lists, decoded images and features are kept in a folder that is gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def only_process() -> Iterator[None]:
    """A trainer that was told to be rank 1 leaves that behind: Lightning's loggers would be silent from then on."""
    yield
    for name in ("lightning.fabric.utilities.rank_zero", "lightning_utilities.core.rank_zero"):
        if name in sys.modules:
            sys.modules[name].rank_zero_only.rank = 0
