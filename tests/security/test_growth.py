"""Small weights files that would fill the memory, or never end: each is refused in one line with little memory left."""

import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest
import torch

from ssl_lightning.runs import torch_files
from tests.security.attack import Attack, parametrize
from tests.security.test_files import MAKER, STORAGE, archive, word

ROOM = 384  # MiB beyond what the program itself has
LIMITED = """
import json, resource, signal, sys
from ssl_lightning.runs.checkpoint import resolve_ckpt
from ssl_lightning.core.errors import UserError
from ssl_lightning.runs.saving import load_state

held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (%d << 20), resource.RLIM_INFINITY))
said = {}
for path in sys.argv[1:]:
    signal.alarm(120)  # ends the process: an endless one is told from a refused one
    try:
        (load_state if path.endswith(".state") else resolve_ckpt)(path)
        said[path] = "was read"
    except UserError as error:
        said[path] = str(error)
    except BaseException as error:
        said[path] = f"{type(error).__name__}: {error}"
    print(json.dumps(said[path]), flush=True)
"""
GROWS, LONG, DAMAGED, DEEP = "again and again", "is too long to be weights", "damaged", "nested too deeply or too long"
NONE = "no state_dict"


def listed(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def copied(maker: bytes, held: bytes, times: int = 10_000) -> bytes:
    """A list of calls of one maker, each with the same value."""
    return maker + b"q\x00" + held + b"q\x01(" + b"h\x00h\x01\x85R" * times + b"l"


def sizes(path: str) -> None:
    archive(path, copied(b"ctorch\nSize\n", listed(*[b"K\x01"] * 100_000)))


def ordered(path: str) -> None:
    archive(path, copied(b"ccollections\nOrderedDict\n", listed(*(number(i) + b"N\x86" for i in range(30_000)))))


def sets(path: str) -> None:
    archive(path, copied(b"c__builtin__\nset\n", listed(*map(number, range(60_000)))))


def counters(path: str) -> None:
    counts = b"}(" + b"".join(number(i) + b"K\x01" for i in range(30_000)) + b"u"
    archive(path, copied(b"ccollections\nCounter\n", counts))


def texts(path: str) -> None:
    """Bytes made from one text."""
    archive(path, copied(b"c_codecs\nencode\n", word("a" * 300_000)))


def byte_arrays(path: str) -> None:
    archive(path, copied(b"c__builtin__\nbytearray\n", b"B" + struct.pack("<I", 300_000) + b"a" * 300_000))


def byte_count(path: str) -> None:
    archive(path, b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R")


def tensor_count(path: str) -> None:
    archive(path, b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R")


def attributes(path: str) -> None:
    """Mappings, each with the same 20,000 attributes."""
    state = b"}(" + b"".join(word(f"{i:06}") + b"N" for i in range(20_000)) + b"u"
    archive(path, b"ccollections\nOrderedDict\nq\x00" + state + b"q\x01(" + b"h\x00)Rh\x01b" * 10_000 + b"l")


def doubling(kind: bytes, times: int = 60) -> bytes:
    """A value that holds another one twice, which holds another one twice ...; it can be had as number `times`."""
    return b"(N\x85q\x00" + b"".join(b"h%ch%c%sq%c" % (i, i, kind, i + 1) for i in range(times)) + b"t0"


def doubled_key(path: str) -> None:
    archive(path, b"}" + doubling(b"\x86") + b"h\x3cNs")


def doubled_storage(path: str) -> None:
    """A storage of such a name, whose text would be written out."""
    name = doubling(b"\x86") + b"(" + word("storage") + b"ctorch\nFloatStorage\nh\x3c" + word("cpu") + b"K\x01tQ"
    archive(path, name)


def trained(path: str, value: bytes) -> None:
    """A checkpoint of a training, with a value of an attacker's."""
    parts = (word("loops") + b"}", word("optimizer_states") + b"]", word("callbacks") + value)
    archive(path, doubling(b"\x86") + b"}(" + word("state_dict") + b"}" + b"".join(parts) + b"u")


def doubled_state(path: str) -> None:
    trained(path, b"h\x3c")


def deep_state(path: str) -> None:
    trained(path, b"]" * 100_000 + b"a" * 99_999)


def own_list(path: str) -> None:
    trained(path, b"]q\xc8h\xc8a")


def same_hash(path: str) -> None:
    """Numbers that all have one hash: each is compared with all before it."""
    keys = (b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(1, 100_000))
    archive(path, b"}(" + b"".join(keys) + b"u")


def long(path: str) -> None:
    archive(path, b"(" + b"}" * 10_000_000 + b"l")


def memo(path: str) -> None:
    archive(path, b"Nr\xff\xff\xff\x7f")


def repeats(path: str) -> None:
    """Sixteen tensors of 2^28 numbers, over four bytes."""
    one = MAKER + b"(" + STORAGE + b"K\x00" + number(2**28) + b"\x85K\x00\x85\x89NtR"
    mapping = b"}(" + b"".join(word(str(i)) + one for i in range(16)) + b"u"
    archive(path, mapping, **{"data/0": b"\0" * 4})


def no_measure(path: str) -> None:
    """A shape whose product is larger than any number of torch's."""
    size = b"(" + number(2**31 - 1) * 4 + b"t(" + b"K\x00" * 4 + b"t"
    archive(path, b"}" + word("w") + MAKER + b"(" + STORAGE + b"K\x00" + size + b"\x89NtRs", **{"data/0": b"\0" * 4})


def old_storages(path: str) -> None:
    """A file of the format before torch 1.6: 10,000 storages, each as large as the file."""
    made = [
        b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word(str(i)) + word("cpu") + number(200_000) + b"NtQ0"
        for i in range(10_000)
    ]
    parts = [pickle.dumps(part, 2) for part in (torch_files.MAGIC, torch_files.VERSION, {})]
    Path(path).write_bytes(b"".join(parts) + b"\x80\x02" + b"".join(made) + b"}." + b"\x80\x02].")


def arrays(path: str) -> None:
    """10,000 arrays of numpy's over the same bytes."""
    kind = b"cnumpy\ndtype\n" + word("f4") + b"\x85R"
    content = b"B" + struct.pack("<I", 400_000) + b"\0" * 400_000
    shape = b"c_codecs\nencode\n0" + number(100_000) + b"\x85"
    one = b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01h\x02" + word("C") + b"tR"
    shared = b"(" + content + b"q\x00" + kind + b"q\x01" + shape + b"q\x02t0"
    archive(path, shared + b"}(" + b"".join(word(str(i)) + one for i in range(10_000)) + b"u")


def packed(path: str) -> None:
    """Numbers packed by bzip2, whose directory says that they are no larger than this: all is unpacked at once."""
    torch.save({"w": torch.zeros(1)}, path)
    content, size = io.BytesIO(), 1 << 29
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(content, "w", zipfile.ZIP_BZIP2) as made:
        for name in plain.namelist():
            with made.open(name, "w") as part:
                for piece in repeat(b"\0" * 2**24, size >> 24) if name.endswith("data/0") else [plain.read(name)]:
                    part.write(piece)
    Path(path).write_bytes(content.getvalue().replace(struct.pack("<I", size), struct.pack("<I", 4)))


def overlapping(path: str) -> None:
    """An archive whose directory names the same megabyte 5,000 times."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", b"\x80\x02}.")
        made.writestr("archive/data/0", b"\0" * 2**20)
        whole = made.infolist()[1]
        for i in range(1, 5_000):
            other = zipfile.ZipInfo(f"archive/data/{i}")
            for key in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(other, key, getattr(whole, key))
            made.filelist.append(other)
            made.NameToInfo[other.filename] = other


def tar(path: str) -> None:
    """As torch wrote its files before 0.1.10."""
    with tarfile.open(path, "w") as made:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = copied(b"ctorch\nSize\n", listed(*[b"K\x01"] * 1000)) + b"."
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))


def attack(name: str, tried: str, refused: str, make: Callable[[str], None], kind: str = "ckpt") -> Attack:
    return Attack(name, tried, refused, {"make": make, "kind": kind})


ATTACKS = [
    attack("copied sizes", "one long list, copied through `torch.Size` 10,000 times", GROWS, sizes),
    attack("copied mappings", "the same through `OrderedDict`", GROWS, ordered),
    attack("copied sets", "the same through `set`", GROWS, sets),
    attack("copied counts", "the same through `Counter`", GROWS, counters),
    attack("copied texts", "one long text, made into bytes 20,000 times", GROWS, texts),
    attack("copied bytes", "the same through `bytearray`", GROWS, byte_arrays),
    attack("many bytes", "`bytearray` of 2^31 bytes", DAMAGED, byte_count),
    attack("tensor by its size", "`torch.FloatTensor` of 2^31 numbers", "could run code", tensor_count),
    attack("copied attributes", "10,000 mappings with the same 20,000 attributes", NONE, attributes),
    attack("doubled key", "a key of tuples within tuples: 2^60 values to hash", NONE, doubled_key),
    attack("doubled name", "a storage of such a name", DAMAGED, doubled_storage),
    attack("doubled state", "a training's state of 2^60 values", DEEP, doubled_state, "state"),
    attack("deep state", "one of 100,000 lists, each within the next", DEEP, deep_state, "state"),
    attack("own list", "one that holds itself", DEEP, own_list, "state"),
    attack("one hash", "100,000 keys with the same hash", NONE, same_hash),
    attack("long pickle", "10,000,000 empty mappings", LONG, long),
    attack("memo", "a value numbered 2^31", "without measure", memo),
    attack("repeats", "four bytes as 2^32 numbers", "larger than their bytes", repeats),
    attack("no measure", "a shape of 2^124 numbers", "larger than their bytes", no_measure),
    attack("old storages", "an old file of 10,000 storages as large as itself", DAMAGED, old_storages),
    attack("packed", "an archive packed by bzip2, with sizes that are not true", DAMAGED, packed),
    attack("overlapping", "an archive that names the same bytes 5,000 times", DAMAGED, overlapping),
    attack("tar", "a file of torch before 0.1.10", DAMAGED, tar),
]  # fmt: skip
SMALL = [attack("shared arrays", "10,000 arrays over the same bytes, which are not copied", "was read", arrays)]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process with little memory says of each file, as far as it came."""
    folder, paths = tmp_path_factory.mktemp("growth"), {}
    for attack in ATTACKS + SMALL:
        paths[attack.name] = folder / f"{attack.name}.{attack.data['kind']}"
        attack.data["make"](str(paths[attack.name]))
    assert max(path.stat().st_size for path in paths.values()) < 16 << 20
    words = [sys.executable, "-c", LIMITED % ROOM, *map(str, paths.values())]
    out = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False).stdout
    return dict(zip(paths, map(json.loads, out.splitlines())))


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory")
@pytest.mark.timeout(900)
@parametrize(ATTACKS + SMALL)
def test_stays_small(attack: Attack, said: dict[str, str]) -> None:
    assert attack.refused in said.get(attack.name, "nothing: it ended the process, or did not end")
    assert "\n" not in said[attack.name]
