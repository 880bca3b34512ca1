"""Audio as data of a run: views that depend on (seed, epoch, clip) alone, ranks, labels, groups, files, cards."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import broken
from ssl_lightning.data.sampler import Request
from ssl_lightning.modalities.audio import source
from ssl_lightning.modalities.audio.clips import ArrayClips, FileClips, leveled
from ssl_lightning.modalities.audio.data import AudioDataModule
from ssl_lightning.modalities.audio.draw import AudioView, AudioViews, LocalAudioView
from ssl_lightning.modalities.audio.fetch import ClipFetch
from ssl_lightning.modalities.audio.sources import Audio, Tones
from ssl_lightning.modalities.image.draw import View
from ssl_lightning.modalities.image.views import Views
from ssl_lightning.models.audio import MelConvNet, WaveConvNet
from ssl_lightning.models.convnet import ConvNetSmall
from ssl_lightning.models.vit import ViT

LENGTH = 1280
MIXED = AudioView(LENGTH, count=2, mix_p=1.0, resize_p=0.5, noise_p=0.5)
SMALL: dict[str, Any] = {"sample_rate": 4000, "length": LENGTH, "mels": 8, "window": 0.032, "hop": 0.01}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sounds(views: AudioViews | None = None, size: int = 44, **more: Any) -> Tones:
    views = AudioViews(MIXED, local=LocalAudioView(LENGTH, count=1)) if views is None else views
    return Tones(size, 22, 0.4, views=views, **{"batch_size": 8, **SMALL, **more})


def digits(root: Path, bad: str = "") -> Path:
    """Two digits by four speakers, three takes, 0.1 to 0.9 s at 4000 Hz."""
    for i, name in enumerate(f"{d}_{s}_{t}.wav" for d in (3, 4) for s in "abcd" for t in range(3)):
        x = np.random.default_rng(i).uniform(-0.5, 0.5, 400 + 140 * i)
        soundfile.write(root / name, x, 4000)
    if bad:
        (root / bad).write_bytes(b"no sound")
    return root


def own(root: Path, **more: Any) -> Audio:
    words = {"labels": "{label}_{group}_{take}", "held_out": "d", "num_workers": 0, "batch_size": 4, **SMALL, **more}
    return Audio(root, views=AudioViews(MIXED), **words)


def by_index(data: AudioDataModule, batches: list[Any]) -> dict[int, list[torch.Tensor]]:
    """The views of each clip."""
    return {int(row): [view[i] for view in b.views] for b in batches for i, row in enumerate(b.indices)}


def trained(data: AudioDataModule) -> list[Any]:
    data.setup("fit")
    return [data.on_after_batch_transfer(raw) for raw in data.train_dataloader()]


def drawn(data: AudioDataModule, rows: list[int], epoch: int) -> list[torch.Tensor]:
    raw = data.train_fetch(data.train_set)[Request(epoch, torch.tensor(rows))]
    return list(data.on_after_batch_transfer(raw).views)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_clips_views_do_not_depend_on_its_batch(epoch: int) -> None:
    data = sounds()
    together, alone = drawn(data, [5, 30, 2], epoch), drawn(data, [2], epoch)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[2], other[0], rtol=1e-4, atol=1e-4)


def test_views_change_with_the_epoch_and_with_the_seed_alone() -> None:
    data, again, other = sounds(), sounds(), sounds(seed=1)
    other._normal = data.normal
    first = drawn(data, [0, 1], 0)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(again, [0, 1], 0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, drawn(data, [0, 1], 1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, drawn(other, [0, 1], 0), strict=True))
    assert [tuple(v.shape[1:]) for v in first] == [(1, 8, 32), (1, 8, 32), (1, 8, 13)]


def test_two_ranks_see_the_views_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(rank: int, world: int) -> list[Any]:
        monkeypatch.setattr("ssl_lightning.core.distributed.rank", lambda: rank)
        monkeypatch.setattr("ssl_lightning.core.distributed.world_size", lambda: world)
        return trained(sounds(batch_size=8 // world))

    whole, first, second = of(0, 1), of(0, 2), of(1, 2)
    for batch, *parts in zip(whole, first, second, strict=True):
        assert batch.indices.tolist() == [i for pair in zip(*(p.indices.tolist() for p in parts)) for i in pair]
    one, other = by_index(sounds(), whole), by_index(sounds(), [*first, *second])
    assert one.keys() == other.keys()
    assert len(one) == 40
    for row, views in one.items():
        for a, b in zip(views, other[row], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_run_that_goes_on_draws_what_was_left() -> None:
    whole, rest = trained(sounds()), sounds()
    rest.setup("fit")
    rest._start = (0, 3)
    batches = [rest.on_after_batch_transfer(raw) for raw in rest.train_dataloader()]
    assert [b.indices.tolist() for b in batches] == [b.indices.tolist() for b in whole[3:]]
    assert all(torch.equal(a, b) for x, y in zip(batches, whole[3:]) for a, b in zip(x.views, y.views, strict=True))


def test_roles_are_those_of_the_views() -> None:
    batch = trained(sounds())[0]
    assert batch.roles == ("global", "global", "local")
    assert sounds().global_count == 2


def test_what_is_mixed_in_is_the_partner_of_the_clip() -> None:
    data = sounds()
    fetch = data.train_fetch(data.train_set)
    assert isinstance(fetch, ClipFetch)
    assert fetch.partners is not None
    raw = fetch[Request(3, torch.tensor([4, 9]))]
    partners = fetch.partners(torch.tensor([4, 9]), 3)
    assert len(partners) == len(raw.items.others) == 2
    for rows, (x, lengths) in zip(partners, raw.items.others, strict=True):
        for i, row in enumerate(rows.tolist()):
            assert torch.equal(x[i, : lengths[i]], data.train_set.clip(row))


@pytest.mark.parametrize("representation", ["logmel", "wave"])
def test_the_evaluation_view_is_the_normalised_middle(representation: str) -> None:
    data = sounds(AudioViews(AudioView(LENGTH)), representation=representation)
    found = [data.on_after_batch_transfer(raw) for raw in data.val_dataloader()[1]]
    again = [data.on_after_batch_transfer(raw) for raw in data.val_dataloader()[1]]
    assert all(torch.equal(a.views[0], b.views[0]) for a, b in zip(found, again, strict=True))
    clip, seen = data.test_set.clip(0), found[0].views[0][0]
    cropped = torch.zeros(LENGTH)
    if len(clip) >= LENGTH:
        begin = (len(clip) - LENGTH) // 2
        cropped = clip[begin : begin + LENGTH]
    else:
        begin = -((len(clip) - LENGTH) // 2)
        cropped[begin : begin + len(clip)] = clip
    y = cropped if representation == "wave" else data.mel(cropped[None])[0]
    torch.testing.assert_close(seen[0], (y - data.normal.mean) / data.normal.std, rtol=1e-4, atol=1e-4)
    assert seen.shape == data.shape == data.padding_views(torch.device("cpu"))[0].shape[1:]


def test_naive_features_are_of_the_same_part_of_a_clip() -> None:
    data = sounds(batch_size=5)
    lengths = data.test_set.lengths
    rows = torch.stack([lengths.argmax(), lengths.argmin(), torch.tensor(20)])
    assert lengths[rows[0]] > LENGTH > lengths[rows[1]]
    found = data.naive_features("test", rows)
    assert found.shape == (3, 16)
    for row, features in zip(rows.tolist(), found, strict=True):
        clip = data.test_set.clip(row)
        begin = max(0, (len(clip) - LENGTH) // 2)
        y = data.mel(clip[begin : begin + LENGTH][None].double())[0]
        frames = max(1, min(len(clip), LENGTH) // data.mel.hop_samples)
        wanted = torch.cat((y[:, :frames].mean(1), y[:, :frames].std(1, correction=0)))
        torch.testing.assert_close(features.double(), wanted, rtol=1e-3, atol=1e-3)


def test_training_bears_the_labels_that_may_be_used_and_no_others() -> None:
    data = sounds(label_fraction=0.25)
    rows = data.labelled_indices("train")
    assert 8 <= len(rows) <= 12
    for batch in trained(data):
        known = torch.isin(batch.indices, rows)
        assert torch.equal(batch.labels >= 0, known)


def test_own_files_with_labels_and_groups_of_their_names(tmp_path: Path) -> None:
    data = own(digits(tmp_path))
    assert (len(data.train_set), len(data.test_set), data.classes) == (18, 6, ["3", "4"])
    assert {Path(p).stem.split("_")[1] for p in data.test_set.paths} == {"d"}
    assert len(trained(data)) == 4


def test_files_are_read_on_access_as_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = own(digits(tmp_path))
    assert isinstance(held.train_set, ArrayClips)
    in_memory = by_index(held, trained(held))
    monkeypatch.setattr(source, "MEMORY_BYTES", 0)
    files = own(tmp_path)
    assert isinstance(files.train_set, FileClips)
    read = by_index(files, trained(files))
    assert read.keys() == in_memory.keys()
    for row, views in read.items():
        for a, b in zip(views, in_memory[row], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-2)  # one is rounded to 16 bits


def test_a_broken_file_is_counted_and_the_next_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "MEMORY_BYTES", 0)
    data = own(digits(tmp_path, "3_a_1.wav"))
    data.train_set.broken.whole = broken.WholeSet(1000, "recording")  # of which ten may be broken
    bad = next(i for i, p in enumerate(data.train_set.paths) if p.endswith("3_a_1.wav"))
    raw = data.train_fetch(data.train_set)[Request(0, torch.tensor([bad]))]
    assert raw.broken.tolist() == [bad]
    assert raw.indices.tolist() == [bad + 1]
    views = data.on_after_batch_transfer(raw).views
    assert all(torch.equal(a, b) for a, b in zip(views, drawn(data, [bad + 1], 0), strict=True))
    assert len(list(data.each("train"))) == 5
    assert "3_a_1.wav" in capfd.readouterr().err


def test_inputs_are_normalised_by_the_training_set_unless_stated() -> None:
    data = sounds()
    values = torch.cat([data.mel(data.train_set.clip(i)[None]).flatten().double() for i in range(44)])
    assert data.normal.mean == pytest.approx(float(values.mean()), abs=2e-3)
    assert data.normal.std == pytest.approx(float(values.std()), abs=2e-3)
    assert sounds(mean=1.5, std=[2]).normal == sounds(mean=[1.5], std=2.0).normal
    wave = sounds(AudioViews(AudioView(LENGTH)), representation="wave")
    assert wave.normal.mean == 0


def test_a_card_says_what_a_network_is_fed_and_is_followed() -> None:
    data = sounds()
    assert "mean" not in data.card()  # nothing has been looked at
    data.setup("fit")
    card = data.card()
    assert card["modality"] == "audio"
    assert card["mels"] == 8
    assert card["length"] == LENGTH
    other = sounds(size=12)
    other.fed_as(card)
    assert other.normal == data.normal
    stated = sounds(mean=0.0, std=1.0)
    stated.fed_as(card)
    assert stated.normal.std == 1.0


def test_networks_that_cannot_take_it_are_refused_in_a_line() -> None:
    data, wave = sounds(), sounds(AudioViews(AudioView(LENGTH)), representation="wave")
    data.check_network(MelConvNet(mels=8, width=4, out_dim=8, layers=2))
    wave.check_network(WaveConvNet(width=4))
    for wrong, of in ((WaveConvNet(width=4), data), (MelConvNet(width=4), data), (ConvNetSmall(4), wave)):
        was = [m.training for m in wrong.modules()]
        with pytest.raises(UserError, match=r"does not take .* choose backbone="):
            of.check_network(wrong)
        assert [m.training for m in wrong.modules()] == was


def test_a_network_of_tokens_has_the_size_of_the_views() -> None:
    """Masked methods count on its own grid; other sizes would be taken, and fewer patches hidden than was asked for."""
    sizes: dict[str, Any] = {"patch_size": 4, "dim": 8, "depth": 1, "heads": 1, "in_channels": 1}
    sounds().check_network(ViT(image_size=(8, 32), **sizes))
    with pytest.raises(UserError, match=r"set backbone\.image_size=\[8, 32\]"):
        sounds().check_network(ViT(image_size=(8, 64), **sizes))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"views": Views(View(32))}, "not of audio; choose views=audio"),
        ({"representation": "wave"}, "waves have no frequencies"),
        ({"representation": "mfcc"}, "use logmel or wave"),
        ({"sample_rate": 500}, "not from 1000 to 384000 Hz"),
        ({"mels": 10**6}, "at most 1024"),
        ({"window": 1e5}, "at most 1024 and data.window 1 s"),
        ({"length": 10}, r"give 40 \(one frame\)"),
        ({"mean": 1.0}, "go together"),
        ({"mean": [1, 2], "std": [1, 2]}, "one number each"),
        ({"high": 9000.0}, "half the sample rate"),
    ],
)
def test_arguments_that_fit_nothing_are_refused(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        Tones(8, 8, **{"views": AudioViews(MIXED), **SMALL, **wrong})


def test_a_folder_must_be_given() -> None:
    with pytest.raises(UserError, match=r"data\.root=FOLDER"):
        Audio()


def test_weak_views_and_pictures() -> None:
    data = sounds()
    weak = data.drawing(data.weak_views((0.5, 1.0)))
    views = drawn(weak, [0, 1], 0)
    assert [tuple(v.shape) for v in views] == [(2, 1, 8, 32)]
    assert weak.views is not data.views
    assert weak.train_set is data.train_set
    picture = data.show(views[0][0])
    assert picture.dtype == torch.uint8
    assert picture.shape[2] == 3


def test_each_clip_is_brought_to_the_level_that_is_asked_for() -> None:
    level = -20.0
    x = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([50, 20, 30])
    x[1, 20:], x[2] = 0, 0  # padding; a silent clip
    found = leveled(x, lengths, level)
    for clip, n, was in zip(found, lengths.tolist(), x):
        wanted = 10 ** (level / 20) / math.sqrt(max(sum(float(v) ** 2 for v in was[:n]) / n, 10 ** ((level - 60) / 10)))
        assert torch.allclose(clip, was * wanted, rtol=1e-12)
    quiet = 1e-9 * x  # at most 60 dB louder
    assert torch.allclose(leveled(quiet, lengths, level), quiet * 1000)
    assert leveled(x, lengths, None) is x


def test_a_level_goes_for_every_set_file_and_partner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits(tmp_path)
    for kind in (ArrayClips, FileClips):
        if kind is FileClips:
            monkeypatch.setattr(source, "MEMORY_BYTES", 0)
        data, plain = own(tmp_path, level=-30.0), own(tmp_path)
        data.setup("fit")
        assert isinstance(data.train_set, kind)
        for clips, others in ((data.train_set, plain.train_set), (data.test_set, plain.test_set)):
            fetched, was = clips.fetch(torch.arange(3)), others.fetch(torch.arange(3))
            assert not torch.allclose(fetched.x, was.x, rtol=0.1)
            assert torch.allclose(fetched.x, leveled(was.x, was.lengths, -30.0))
            assert torch.equal(clips.clip(0), others.clip(0))  # as it is
        assert data.card()["level"] == -30.0
        assert "level" not in plain.card()
    raw = data.train_fetch(data.train_set)[Request(0, torch.arange(2))]
    x, lengths = raw.items.others[0]
    torch.testing.assert_close((x.square().sum(1) / lengths).sqrt(), torch.full((2,), 10**-1.5), rtol=1e-4, atol=0)
