"""`.transform` and `.embed` of a backbone of audio: what its evaluation view gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_lightning import load_backbone
from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.audio.sources import Audio
from ssl_lightning.models.audio import MelConvNet, WaveConvNet
from ssl_lightning.runs.checkpoint import save_backbone

soundfile = pytest.importorskip("soundfile")
NODES: dict[str, dict[str, Any]] = {
    "logmel": {"_target_": "ssl_lightning.models.audio.MelConvNet", "mels": 16, "width": 4, "out_dim": 8},
    "wave": {"_target_": "ssl_lightning.models.audio.WaveConvNet", "width": 8},
}


def wave(seconds: float, rate: int, seed: int, channels: int = 1) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    generator = np.random.default_rng(seed)
    tones = [np.sin(2 * np.pi * generator.uniform(80, 900) * time + k) for k in range(channels)]
    noise = generator.normal(0, 0.02, (len(time), channels))
    return (0.3 * np.stack(tones, 1) * (0.2 + time / seconds)[:, None] + noise).squeeze()


def recordings(folder: Path) -> Path:
    folder.mkdir()
    for name, seconds, rate, channels, kind in (
        ("short.wav", 0.3, 8000, 1, "PCM_16"),
        ("stereo.wav", 1.5, 8000, 2, "PCM_16"),
        ("high.wav", 1.1, 44100, 1, "PCM_24"),
        ("float.wav", 1.0, 8000, 1, "FLOAT"),
        ("long.flac", 4.0, 16000, 1, "PCM_16"),
        ("loud.wav", 1.2, 8000, 1, "FLOAT"),
    ):
        samples = wave(seconds, rate, len(name), channels) * (5 if name == "loud.wav" else 1)
        soundfile.write(folder / name, samples, rate, subtype=kind)
    return folder


def the_data(root: Path, representation: str, **more: Any) -> Audio:
    given = {"sample_rate": 8000, "length": 6400, "mels": 16, "seconds": 3.0, "num_workers": 0, "test_fraction": 0.3}
    return Audio(root=root, representation=representation, **(given | more))


def evaluated(data: Audio) -> dict[str, Tensor]:
    found = {}
    for split, part in (("train", data.train_set), ("test", data.test_set)):
        for batch in data.eval_loader(split):  # type: ignore[arg-type]
            assert part.paths is not None
            found |= {part.paths[i]: x for i, x in zip(batch.indices.tolist(), batch.views[0], strict=True)}
    return found


def a_backbone(folder: Path, data: Audio) -> nn.Module:
    node = NODES[data.representation]
    net = MelConvNet(16, 4, 8) if data.representation == "logmel" else WaveConvNet(8)
    data.normal  # noqa: B018 (of the training set, so that the card has it)
    save_backbone(net, node, folder, **data.card())
    return load_backbone(folder)


@pytest.mark.parametrize("representation", ["logmel", "wave"])
@pytest.mark.parametrize("level", [None, -20.0])
def test_a_file_becomes_what_the_evaluation_view_gives(
    tmp_path: Path, representation: str, level: float | None
) -> None:
    data = the_data(recordings(tmp_path / "sounds"), representation, level=level)
    wanted = evaluated(data)
    net = a_backbone(tmp_path / "run", data)
    assert len(wanted) == 6
    assert net.card["seconds"] == 3.0
    for path, x in wanted.items():
        found = net.transform(path)
        assert found.shape == x.shape
        torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)
        samples, rate = soundfile.read(path, dtype="float32")
        for one in (samples, torch.from_numpy(samples.T)):
            torch.testing.assert_close(net.transform(one, rate), x, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        rows = net(torch.stack([wanted[path] for path in sorted(wanted)]))
    torch.testing.assert_close(net.embed(tmp_path / "sounds", batch_size=4), rows, rtol=1e-5, atol=1e-5)


def test_the_middle_of_a_long_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", wave(6.0, 8000, i), 8000)
    data = the_data(tmp_path / "sounds", "wave")
    wanted = evaluated(data)
    net = a_backbone(tmp_path / "run", data)
    for path, x in wanted.items():
        assert torch.equal(net.transform(path), x)


def test_whole_numbers_are_scaled(tmp_path: Path) -> None:
    data = the_data(recordings(tmp_path / "sounds"), "wave")
    net = a_backbone(tmp_path / "run", data)
    path = tmp_path / "sounds" / "short.wav"
    samples, rate = soundfile.read(path, dtype="int16")
    assert torch.equal(net.transform(samples, rate), net.transform(path))
    assert torch.equal(net.transform((torch.from_numpy(samples), rate)), net.transform(path))
    assert net.embed((samples, rate)).shape == (1, 8)
    assert net.embed([(samples, rate), path]).shape == (2, 8)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    net = a_backbone(tmp_path / "run", the_data(recordings(tmp_path / "sounds"), "wave"))
    (tmp_path / "sounds" / "bad.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(UserError, match=r"bad\.wav cannot be read as a recording"):
        net.embed(tmp_path / "sounds")
    soundfile.write(tmp_path / "silent.wav", np.zeros(800), 8000)
    with pytest.raises(UserError, match=r"silent\.wav is silent"):
        net.transform(tmp_path / "silent.wav")
    with pytest.raises(UserError, match="a wave needs its rate"):
        net.transform(np.zeros(100, np.float32))
    with pytest.raises(UserError, match="is not a recording"):
        net.transform(np.zeros((2, 3, 4)), 8000)
