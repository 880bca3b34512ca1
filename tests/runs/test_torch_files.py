"""What torch reads as plain values is read here as the same: types, sharing, layouts, what stands beside a tensor."""

import argparse
import io
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.core.errors import UserError
from ssl_lightning.runs import saving, torch_files
from ssl_lightning.runs.inert import Refused

BASE = torch.arange(24.0)
KINDS = (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint16, torch.bool, torch.complex64)


def versioned() -> OrderedDict[str, Any]:
    return torch.nn.BatchNorm1d(3).state_dict()  # type: ignore[return-value]


VALUES: dict[str, Any] = {
    "plain": {"a": 1, "b": [2.5, None, True, -(2**80)], "c": ("x", b"\x00\xff"), 3: {4.5: (), None: [], b"k": "ü"}},
    "keys": {(1, "a"): 1, True: 2, torch.float32: 3},
    "containers": [Counter("aab"), OrderedDict(x=1), {1, "a", (2, 3)}, bytearray(b"ab"), 1 + 2j, torch.Size([2, 3])],
    "names": [torch.float16, torch.device("cuda:1"), torch.device("cpu")],
    "kinds": [torch.ones(3).to(kind) for kind in KINDS],
    "shapes": [torch.tensor(3.0), torch.empty(0), torch.empty(3, 0), torch.zeros(1, 2, 3)],
    "views": [BASE, BASE[3:9], BASE.view(4, 6).t(), BASE[::2], torch.ones(2, 1).expand(2, 5)],
    "signs": [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag],
    "module": versioned(),
    "optimizer": torch.optim.AdamW([torch.nn.Parameter(BASE.clone())]).state_dict(),
}  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        layout = (one.dtype, one.shape, one.stride(), one.storage_offset(), one.is_conj(), one.is_neg())
        theirs = (other.dtype, other.shape, other.stride(), other.storage_offset(), other.is_conj(), other.is_neg())
        return layout == theirs and bool((one.contiguous().view(-1) == other.contiguous().view(-1)).all())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("old", [False, True], ids=["archive", "old"])
@pytest.mark.parametrize("name", VALUES)
def test_read_as_torch_reads_it(tmp_path: Path, name: str, old: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(VALUES[name], path, _use_new_zipfile_serialization=not old)
    theirs = VALUES[name] if old else torch.load(path, weights_only=True)  # of old files torch reads fewer kinds
    assert same(saving.load(path, strict=True), theirs)


def test_tensors_that_share_their_numbers_still_do(tmp_path: Path) -> None:
    torch.save([BASE, BASE[3:9]], tmp_path / "x.pt")
    one, other = saving.load(tmp_path / "x.pt")
    other += 100
    assert one[3] == 103


def test_what_a_state_dict_knows_of_its_layers(tmp_path: Path) -> None:
    torch.save(versioned(), tmp_path / "x.pt")
    assert saving.load(tmp_path / "x.pt")._metadata == versioned()._metadata  # type: ignore[attr-defined]


def test_bytes_of_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(BASE, tmp_path / "x.pt")
    monkeypatch.setattr(torch_files.sys, "byteorder", "big")
    found = saving.load(tmp_path / "x.pt")
    assert torch.equal(found, torch.from_numpy(BASE.numpy().byteswap()))


@pytest.mark.parametrize("value", [argparse.Namespace(a=1), torch.nn.Linear, {((1,), 2): 3}])
def test_strict_reading_leaves_nothing_out(value: Any) -> None:
    file = io.BytesIO()
    torch.save({"x": value}, file)
    torch_files.read(file)
    with pytest.raises(Refused):
        torch_files.read(file, strict=True)


def test_honest_lengths(tmp_path: Path) -> None:
    """A checkpoint of 3,000 tensors, with long lists beside them."""
    state = {f"layer{i}.weight": torch.zeros(2, 2) for i in range(3_000)}
    content = {
        "state_dict": state,
        "optimizer": [dict(state) for _ in range(3)],
        "losses": [i / 7 for i in range(10**6)],
    }
    torch.save(content, tmp_path / "x.pt")
    assert len(saving.load(tmp_path / "x.pt")["losses"]) == 10**6


def test_a_file_that_is_too_much_is_no_damaged_one(tmp_path: Path) -> None:
    """The checkpoint before it is not taken instead: nothing is wrong with the disk."""
    torch.save({"w": torch.zeros(1).expand(2**27)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="larger than their bytes; save the network's state_dict alone") as refused:
        saving.load(tmp_path / "x.pt")
    assert not isinstance(refused.value, saving.Damaged)
