"""Kept features: the same numbers to the bit, for these weights and these data alone, whatever happens to the files."""

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_lightning.evaluation import feature_cache
from ssl_lightning.evaluation.feature_cache import FeatureCache
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.modalities.audio.sources import Tones
from ssl_lightning.modalities.image.sources.array import Array
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.modalities.image.sources.shapes import Shapes
from ssl_lightning.models.audio import WaveConvNet
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.vit import ViT
from ssl_lightning.stages import kept_features
from ssl_lightning.stages.kept_features import features_of, key_of, network_digest, parts_kept
from tests.gloo import run_two
from tests.stages.tiny_run import TinyData

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ssl_lightning" / "features"


def shapes(**changes: Any) -> Shapes:
    return Shapes(**{"size": 60, "test_size": 30, "image_size": 16, "batch_size": 16, "num_workers": 0, **changes})


def a_net(width: int = 4) -> ConvNetSmall:
    torch.manual_seed(3)
    return ConvNetSmall(width)


def counted(net: nn.Module) -> list[int]:
    calls: list[int] = []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    return calls


def same(one: Features, other: Features) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_the_second_time_no_network_is_run_and_all_is_the_same_to_the_bit(cache: Path) -> None:
    net, data = a_net(), shapes(labels_per_class=2)
    calls, rows = counted(net), data.labelled_indices("train")
    plain = features_of(net, data, "train", rows, CPU, None)
    assert not cache.exists()
    first = features_of(net, data, "train", rows, CPU, "auto")
    before = len(calls)
    second = features_of(net, data, "train", rows, CPU, "auto")
    assert len(calls) == before
    assert same(plain, first)
    assert same(plain, second)
    assert len(list(cache.iterdir())) == 1
    second.x[0] = 7.0  # of the copy in memory: the file stays
    assert same(features_of(net, data, "train", rows, CPU, "auto"), plain)
    parts = list(parts_kept(net, data, "test", CPU, "auto", 16))
    assert [len(part) for part in parts] == [16, 14]
    assert torch.equal(torch.cat([part.x for part in parts]), extract(net, data.eval_loader("test")).x)


def test_of_audio_and_of_targets() -> None:
    torch.manual_seed(1)
    net = WaveConvNet(8)
    tones = {"size": 24, "test_size": 12, "length": 1600, "sample_rate": 8000, "representation": "wave"}
    data = Tones(**tones, seconds=0.2, batch_size=8, num_workers=0)
    calls, plain = counted(net), features_of(net, data, "test", None, CPU, None)
    assert same(features_of(net, data, "test", None, CPU, "auto"), plain)
    before = len(calls)
    assert same(features_of(net, data, "test", None, CPU, "auto"), plain)
    assert len(calls) == before


def an_array(folder: Path, images: np.ndarray, labels: np.ndarray) -> Array:
    np.savez(folder / "x.npz", images=images, labels=labels)
    return Array(folder / "x.npz", image_size=16, batch_size=16, num_workers=0)


def test_any_change_of_weights_or_data_is_another_key(tmp_path: Path) -> None:
    net, data = a_net(), shapes()
    keys = {"begin": key_of(net, data, "test", None, CPU)}

    def note(name: str, net: nn.Module, data: Any, split: Any = "test", rows: Tensor | None = None) -> None:
        keys[name] = key_of(net, data, split, rows, CPU)

    note("again", a_net(), shapes())
    assert keys.pop("again") == keys["begin"]
    note("other labels to use", net, shapes(label_fraction=0.5, bank_size=3, num_workers=1))
    assert keys.pop("other labels to use") == keys["begin"], "what changes no feature of the test split"
    with torch.no_grad():
        changed = a_net()
        changed.conv1[0].weight[0, 0, 0, 0] += 1e-6
        note("weight", changed, data)
        changed = a_net()
        changed.conv1[1].running_mean[0] += 1e-6
        note("buffer", changed, data)
        changed = a_net()
        changed.conv1[1].eps = 1e-4
        note("setting", changed, data)
    note("train", net, data, "train")
    note("rows", net, data, "test", torch.arange(10))
    note("size", net, shapes(image_size=24))
    note("mean", net, shapes(mean=(0.4, 0.5, 0.4)))
    note("crop", net, shapes(eval_resize=20))
    note("items", net, shapes(image_seed=1))
    note("batch", net, shapes(batch_size=8))
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8), np.arange(40) % 2
    note("array", net, an_array(tmp_path, images, labels))
    images[-1] ^= 1
    images[0] ^= 1
    note("a pixel", net, an_array(tmp_path, images, labels), "train")
    images[3, 0, 0, 0] ^= 1
    images[2, 0, 0, 0] ^= 1
    note("another pixel", net, an_array(tmp_path, images, labels), "train")
    note("a label", net, an_array(tmp_path, images, 1 - labels), "train")
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)
    readouts = {network_digest(ViT(16, 8, dim=12, depth=1, heads=2, readout=r)) for r in ("cls", "mean")}  # type: ignore[arg-type]
    assert len(readouts) == 2


def test_a_file_that_was_rewritten_is_seen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                shade = 40 * i + 10 * (name == "b")
                Image.new("RGB", (20 + i, 24), (shade, 99, 9)).save(tmp_path / split / name / f"{i}.png")
    net, kept = a_net(), Folder(tmp_path, image_size=16, batch_size=4, num_workers=0)
    first = features_of(net, kept, "test", None, CPU, "auto")
    file = tmp_path / "test" / "a" / "1.png"
    Image.new("RGB", (21, 24), (250, 0, 0)).save(file)
    again = features_of(net, Folder(tmp_path, image_size=16, batch_size=4, num_workers=0), "test", None, CPU, "auto")
    changed = (first.x != again.x).any(1)
    assert changed.tolist() == [False, True, False, False, False, False]
    key = key_of(net, kept, "test", None, CPU)
    os.utime(file, ns=(1, 1))
    assert key_of(net, kept, "test", None, CPU) != key
    file.unlink()
    assert key_of(net, kept, "test", None, CPU) is None  # it may come back


def test_what_cannot_be_told_is_not_kept(cache: Path) -> None:
    class Here(ConvNetSmall):
        pass

    data, net = shapes(), a_net()
    assert key_of(net.forward, data, "test", None, CPU) is None  # type: ignore[arg-type]
    assert key_of(net, TinyData(), "test", None, CPU) is None  # what another's class does is not known
    assert network_digest(Here(4)) != network_digest(net)  # a class of a file of its own
    made = type("Made", (nn.Module,), {"__module__": "nowhere"})
    assert network_digest(made()) is None
    assert len(features_of(net.forward, data, "test", None, CPU, "auto")) == 30
    assert not cache.exists()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[feature_cache.HEADER + 5] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "a flipped bit": flip,
    "empty": lambda file: file.write_bytes(b""),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "something else": lambda file: file.write_bytes(b"{}" * 9000),
    "a shape that does not fit": lambda file: file.write_bytes(
        file.read_bytes().replace(b'"shape": [30, ', b'"shape": [31, ', 1)
    ),
    "a list": lambda file: file.write_bytes((4088).to_bytes(8, "little") + b"[1]".ljust(4088) + b"xy"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_anew(damage: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, data = a_net(), shapes()
    first = features_of(net, data, "test", None, CPU, "auto")
    first = Features(first.x.clone(), first.labels.clone(), first.indices.clone())
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    DAMAGES[damage](file)
    capsys.readouterr()
    assert same(features_of(net, data, "test", None, CPU, "auto"), first)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"The kept features {file} are damaged (")
    assert line.endswith("; they are computed anew.")
    assert file.read_bytes() == whole


def test_a_full_disk_is_one_line(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, parts: Iterator[Features]) -> None:
        file.write(b"some")
        next(iter(parts))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "_write", full)
    net, data = a_net(), shapes()
    assert same(features_of(net, data, "test", None, CPU, "auto"), extract(net, data.eval_loader("test")))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"Features cannot be kept in {cache} (No space left on device); going on without."
    assert list(cache.iterdir()) == []


def test_an_error_of_the_data_is_not_taken_for_the_disk_s(cache: Path) -> None:
    def parts() -> Iterator[Features]:
        yield Features(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        raise OSError(errno.EIO, "a drive that is gone")

    with pytest.raises(OSError, match="gone"):
        FeatureCache().write("k", parts(), 8)
    assert list(cache.iterdir()) == []


def test_no_room_and_a_folder_that_cannot_be_written(
    cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not FeatureCache(most=100).write("k", iter(()), 1000)
    assert "are not kept" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    net, data = a_net(), shapes()
    assert len(features_of(net, data, "test", None, CPU, "auto")) == 30
    said = [line for line in capsys.readouterr().err.splitlines() if "features" in line]
    assert len(said) == 1
    assert said[0].endswith("cannot be written; features are not kept.")


def test_the_least_recently_used_go(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = FeatureCache(most=3 * (feature_cache.HEADER + 400))
    part = Features(torch.ones(10, 5), torch.arange(10), torch.arange(10))
    for i, key in enumerate("abc"):
        assert store.write(key, [part], 200)
        os.utime(store.path(key), ns=(i, i))
    assert store.read("a") is not None  # used just now
    assert store.write("d", [part], 200)
    assert sorted(path.stem for path in cache.iterdir()) == ["a", "c", "d"]
    assert "Dropped the 1 least recently used" in capsys.readouterr().err


def at_once(home: str, queue: Any) -> None:
    os.environ["XDG_CACHE_HOME"] = home
    torch.set_num_threads(1)
    queue.put(features_of(a_net(), shapes(), "test", None, CPU, "auto").x.sum().item())


@pytest.mark.long
def test_two_processes_at_once(tmp_path: Path, cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    both = [context.Process(target=at_once, args=(str(tmp_path / "cache"), queue)) for _ in range(2)]
    for process in both:
        process.start()
    sums = {queue.get(timeout=120) for _ in both}
    for process in both:
        process.join()
    assert sums == {extract(a_net(), shapes().eval_loader("test")).x.sum().item()}
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def on_ranks(rank: int, world: int, home: str) -> dict[str, Any]:
    os.environ["XDG_CACHE_HOME"] = home
    net, data = a_net(), shapes()
    calls, first = counted(net), features_of(net, data, "test", None, CPU, "auto")
    before = len(calls)
    second = features_of(net, data, "test", None, CPU, "auto")
    return {"x": first.x.clone(), "again": second.x.clone(), "calls": len(calls) - before}


@pytest.mark.long
def test_where_one_rank_cannot_tell_the_key_none_looks_into_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ranks(mine: Any) -> list[Any]:
        asked.append(mine)
        return [mine, None]

    monkeypatch.setattr(kept_features, "gather_objects", ranks)
    net, data = a_net(), shapes()
    assert len(features_of(net, data, "test", None, CPU, "auto")) == 30
    assert asked == [key_of(net, data, "test", None, CPU)]  # once: the other rank does not come to a second question
    assert not cache.exists()


@pytest.mark.long
def test_ranks_share_one_file(tmp_path: Path, cache: Path) -> None:
    for found in run_two(on_ranks, str(tmp_path / "cache")):
        assert found["calls"] == 0
        assert torch.equal(found["x"], found["again"])
    assert len(list(cache.iterdir())) == 1
