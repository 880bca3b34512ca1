"""Data from strangers: what is no file, no image or no plain array is skipped or refused, quickly, and nothing runs."""

import argparse
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import utils

from ssl_lightning.core.errors import UserError
from ssl_lightning.data.folder_scan import list_images
from ssl_lightning.modalities.image.images import BROKEN, decode
from ssl_lightning.modalities.image.sources.array import Array
from ssl_lightning.modalities.image.sources.cifar import CIFAR10
from ssl_lightning.modalities.image.sources.stl10 import FILES, STL10
from ssl_lightning.runs import torch_files
from ssl_lightning.runs.checkpoint import resolve_ckpt
from ssl_lightning.runs.saving import STAMP
from tests.security.attack import Attack, parametrize

SKIPPED, BROKEN_FILE = "skipped", "cannot be decoded"
IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


class Canary:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("canary",)


def png(path: str, size: tuple[int, int] = (8, 8)) -> None:
    Image.new("RGB", size).save(path, "PNG")


def unix_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def large(path: str) -> None:
    png(path)
    content = bytearray(Path(path).read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    Path(path).write_bytes(bytes(content))


def npz(path: str, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


def unpacks_to_much(path: str) -> None:
    """A small archive whose directory claims 4 GiB."""
    npz(path, images=header((2**20, 32, 32, 4)))
    content = Path(path).read_bytes()
    where = content.rindex(b"PK\x01\x02")
    Path(path).write_bytes(content[: where + 24] + b"\xf0\xff\xff\xff" + content[where + 28 :])


def cifar(root: str) -> None:
    folder = Path(root, "cifar-10-batches-py")
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Canary()))


def climbing(root: str) -> None:
    with tarfile.open(Path(root, "cifar-10-python.tar.gz"), "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../canary"))


def cifar_pipe(root: str) -> None:
    os.mkfifo(Path(root, "cifar-10-python.tar.gz"))


def stl(root: str, **content: bytes) -> None:
    folder = Path(root, "stl10_binary")
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(content.get(name.partition(".")[0], b"\0" * 96 * 96 * 3))


def bare_pickle(path: str) -> None:
    Path(path).write_bytes(pickle.dumps(Canary(), 2))


def archive(path: str, pickled: bytes, **members: bytes) -> None:
    """A file as torch writes it, around pickled words of an attacker's own."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        for name, content in {"version": b"3\n", **members}.items():
            made.writestr(f"archive/{name}", content)


def word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


MAKER = b"ctorch._utils\n_rebuild_tensor_v2\n"
DEFAULTS = b"N}" + word("__defaults__") + b"K\x01\x85s\x86b"  # sets an attribute of what stands before it
STORAGE = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu") + b"K\x01tQ"


def beyond(path: str) -> None:
    """A tensor of 2^31 numbers over the four bytes of one."""
    size = b"J\xff\xff\xff\x7f\x85K\x01\x85"
    archive(path, MAKER + b"(" + STORAGE + b"K\x00" + size + b"\x89NtR", **{"data/0": b"\0" * 4})


def long_text(path: str) -> None:
    Path(path).write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".")


def doubled(path: str) -> None:
    """A mapping that holds another eight times, eleven times over: a small file of 10^10 tensors."""
    import torch

    held: dict[str, Any] = {"x": torch.zeros(1)}
    for _ in range(11):
        held = {str(i): held for i in range(8)}
    torch.save(held, path)


def repeated(path: str) -> None:
    """One number, 2^36 times."""
    import torch

    torch.save({"weight": torch.zeros(1).expand(2**36)}, path)


def stamped(path: str) -> None:
    """An archive that is packed, and says that we have written it."""
    import torch

    torch.save({"weight": torch.zeros(2**20)}, "plain")
    content = io.BytesIO()
    with zipfile.ZipFile("plain") as plain, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    whole = content.getvalue()
    stamp = STAMP + hashlib.sha256(whole).hexdigest().encode()
    Path(path).write_bytes(whole[:-2] + struct.pack("<H", len(stamp)) + stamp)


def unfilled(path: str) -> None:
    """A file of the format before torch 1.6, without the numbers of its tensor."""
    storage = STORAGE.replace(b"K\x01t", b"K\x04Nt")
    tensor = MAKER + b"(" + storage + b"K\x00K\x04\x85K\x01\x85\x89NtR"
    parts = [pickle.dumps(part, 2) for part in (torch_files.MAGIC, torch_files.VERSION, {})]
    Path(path).write_bytes(b"".join(parts) + b"\x80\x02}" + word("weight") + tensor + b"s." + b"\x80\x02].")


def padded(path: str) -> None:
    """A TIFF file of one pixel, in a tile of 2^30 bytes."""
    entries = {256: 1, 257: 1, 258: 16, 259: 8, 262: 1, 277: 8, 322: 2**13, 323: 2**13, 324: 8, 325: 4}
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries.items())
    Path(path).write_bytes(b"II*\0" + struct.pack("<I", 12) + b"\0" * 4 + directory + b"\0" * 4)


class Set:
    """Calls something with settings that a training program leaves beside its weights."""

    def __reduce__(self) -> Any:
        return argparse.Namespace, (), {"hook": Canary()}


def settings(path: str) -> None:
    import torch

    torch.save({"args": Set()}, path)


def asks(path: str) -> None:
    archive(path, b"cbuiltins\ngetattr\n")


def behind(path: str) -> None:
    archive(path, b"ctorch.nn.os\nsystem\n" + word("mkdir canary") + b"\x85R")


def changes(path: str) -> None:
    archive(path, MAKER + DEFAULTS)


def group(path: str) -> None:
    archive(path, b"ctorch.distributed\ninit_process_group\n" + word("gloo") + b"\x85R")


def program(path: str) -> None:
    archive(path, b"N", **{"constants.pkl": b"", "code/x.py": b""})


def objects(path: str) -> None:
    made = np.array([Canary()])
    np.savez(path, images=made) if path.endswith("npz") else np.save(path, made, allow_pickle=True)


def claims_much(path: str) -> None:
    Path(path).write_bytes(header((10**12, 32, 32)))


def huge_label(path: str) -> None:
    np.savez(path, images=IMAGES, labels=np.array([0, 1, 2, 10**15]))


def no_text(root: str) -> None:
    stl(root, class_names=b"\xff")


def attack(name: str, tried: str, refused: str, kind: str, make: Any) -> Attack:
    return Attack(name, tried, refused, {"kind": kind, "make": make})


ATTACKS = [
    attack("pipe", "a named pipe `x.png` in a data folder", SKIPPED, "entry", os.mkfifo),
    attack("socket", "a socket `x.png`", SKIPPED, "entry", unix_socket),
    attack("device", "a link `x.png` to /dev/zero", SKIPPED, "entry", lambda p: os.symlink("/dev/zero", p)),
    attack("loop", "a link `x.png` to itself", SKIPPED, "entry", lambda p: os.symlink(p, p)),
    attack("late pipe", "a pipe in the place of a file that was listed", BROKEN_FILE, "image", os.mkfifo),
    attack("eps", "PostScript named `x.png`", BROKEN_FILE, "image", lambda p: Image.new("RGB", (8, 8)).save(p, "EPS")),
    attack("large", "a PNG that claims 60,000 x 60,000 pixels", BROKEN_FILE, "image", large),
    attack("padded", "a TIFF of one pixel in a tile of 1 GiB", "no sensible size", "image", padded),
    attack("pickle as image", "a pickle named `x.png`", BROKEN_FILE, "image", bare_pickle),
    attack("object npy", "an .npy of pickled objects", "cannot be read", "a.npy", objects),
    attack("object npz", "the same in an .npz", "cannot be read", "a.npz", objects),
    attack("pickle as npy", "a bare pickle named .npy", "cannot be read", "a.npy", bare_pickle),
    attack("zip as npy", "an .npz named .npy", "cannot be read", "a.npy", lambda p: npz(p, images=header((0,)))),
    attack("long header", "an .npy that claims 10^15 bytes", "cannot be read", "a.npy", claims_much),
    attack("zip bomb", "an .npz larger than the memory", "more than this machine", "a.npz", unpacks_to_much),
    attack("huge label", "a label of 10^15: as many class names", "expected class numbers", "a.npz", huge_label),
    attack("pipe as array", "a named pipe `a.npy`", "does not exist", "a.npy", os.mkfifo),
    attack("cifar pickle", "CIFAR-10 batches with a pickle that runs code", "cannot be downloaded", "cifar", cifar),
    attack("archive", "CIFAR-10's archive with a member `../canary`", "cannot be downloaded", "cifar", climbing),
    attack("pipe as archive", "CIFAR-10's archive as a named pipe", "is not a regular file", "cifar", cifar_pipe),
    attack("stl sizes", "STL-10 files of other sizes", "is damaged", "stl", lambda p: stl(p, train_X=b"123")),
    attack("stl text", "STL-10 class names that are no text", "is damaged", "stl", no_text),
    attack("pipe as weights", "`ckpt=` on a named pipe", "no checkpoint at", "x.safetensors", os.mkfifo),
    attack("pickle as checkpoint", "`ckpt=` on a pickle that runs code", "could run code", "x.ckpt", bare_pickle),
    attack("settings", "a call hidden in the `args` beside the weights", "could run code", "x.ckpt", settings),
    attack("getattr", "a pickle that asks for an attribute", "could run code", "x.ckpt", asks),
    attack("behind a module", "a name behind a listed one", "no state_dict", "x.ckpt", behind),
    attack("changed maker", "a pickle that changes torch's own function", "no state_dict", "x.ckpt", changes),
    attack("sharded tensor", "a call of torch.distributed beside the weights", "no state_dict", "x.ckpt", group),
    attack("program", "a TorchScript program", "could run code", "x.ckpt", program),
    attack("beyond", "a tensor larger than its bytes", "damaged", "x.ckpt", beyond),
    attack("long text", "a text that claims 2^60 bytes", "damaged", "x.ckpt", long_text),
    attack("doubled", "mappings within mappings: 10^10 tensors", "too deeply or too long", "x.ckpt", doubled),
    attack("repeated", "one number repeated 2^36 times by strides", "larger than their bytes", "x.ckpt", repeated),
    attack("stamped bomb", "a packed archive that bears our stamp", "damaged", "x.ckpt", stamped),
    attack("unfilled", "an old file without its tensor's numbers", "damaged", "x.ckpt", unfilled),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(utils, "_urlretrieve", refuse)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, *args, **kwargs: url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path


def entry(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png("good.png")
    assert list_images(".").files == ["good.png"]
    said = capsys.readouterr().err
    assert said.startswith("Skipped links and entries that are not regular files")
    assert path.name in said
    assert said.count("\n") == 1


def read(kind: str, path: Path) -> Any:
    sources: dict[str, Any] = {"cifar": CIFAR10, "stl": STL10, "a.npy": Array, "a.npz": Array}
    return sources[kind](path).train_set if kind in sources else resolve_ckpt(path)


@pytest.mark.timeout(30)
@parametrize(ATTACKS)
def test_skipped_or_refused(
    attack: Attack, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = attack.data["kind"]
    if attack.name == "zip bomb":
        monkeypatch.setattr(os, "sysconf", lambda name: 1024)  # a machine of 1 MiB
    path = Path({"entry": "x.png", "image": "x.png", "cifar": ".", "stl": "."}.get(kind, kind))
    attack.data["make"](str(path))
    if kind == "entry":
        entry(path, capsys)
    elif kind == "image":
        with pytest.raises(BROKEN, match=None if attack.refused == BROKEN_FILE else attack.refused):
            decode(str(path))
    else:
        with pytest.raises(UserError, match=attack.refused) as error:
            read(kind, path)
        assert "\n" not in str(error.value)
    assert not (here / "in" / "canary").exists()
    assert not (here / "canary").exists()


def test_honest_files_stay(here: Path) -> None:
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.webp", "WEBP"), ("d.tif", "TIFF"), ("e.gif", "GIF")):
        Image.new("RGB", (8, 8)).save(name, kind)
    Image.new("RGB", (8, 8)).save("f.ppm")
    os.symlink("a.png", "g.png")
    assert len(list_images(".").files) == 7
    assert all(decode(path).shape == (8, 8, 3) for path in list_images(".").paths())
    np.savez("h.npz", images=np.zeros((40, 8, 8, 3), np.uint8), labels=np.arange(40) % 4, other=np.array([Canary()]))
    data = Array("h.npz")
    assert (len(data.train_set), data.train_set.classes) == (36, ["0", "1", "2", "3"])
    assert not Path("canary").exists()


def test_no_word_of_a_file_changes_a_function(here: Path) -> None:
    from torch._utils import _rebuild_tensor_v2

    before = _rebuild_tensor_v2.__defaults__
    archive("x.ckpt", MAKER + DEFAULTS)
    with pytest.raises(UserError, match="no state_dict"):
        resolve_ckpt("x.ckpt")
    assert _rebuild_tensor_v2.__defaults__ == before
