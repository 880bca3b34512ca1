"""What a weights file may name: as text, for nothing of it is imported (see `inert`)."""

import re

import torch

# What a file may name: these and, where a name ends in a dot, all below it. Classes of settings, numbers, containers,
# modules, and the things that training programs leave in their checkpoints. None of them is imported.
_HARMLESS = """argparse.Namespace types.SimpleNamespace collections. datetime. pathlib. decimal.Decimal uuid.UUID
_codecs.encode copyreg._reconstructor functools.partial builtins.set builtins.frozenset builtins.list builtins.dict
builtins.tuple builtins.complex builtins.bytearray builtins.slice builtins.range builtins.int builtins.float
builtins.str builtins.bool builtins.bytes builtins.object numpy. torch.nn. torch.optim. torch.distributed. torch.Size
torch.device torch.dtype torch.Tensor torch.Generator torch.torch_version.TorchVersion torch.utils.data. torch._utils.
torch._tensor._rebuild_from_type_v2 torch.serialization._get_layout torch.amp. torch.cuda.amp. __main__. lightning.
pytorch_lightning. lightning_fabric. lightning_utilities. torchmetrics. omegaconf. hydra. yacs. easydict. addict. box.
munch. ml_collections. fvcore. iopath. detectron2. mmcv. mmengine. mmpretrain. mmselfsup. mmcls. vissl. classy_vision.
apex. fairseq. lightly. lightly_train. solo. stable_pretraining. timm. torchvision. open_clip. transformers. dinov2.
ssl_lightning. PIL. utils. models. src."""
HARMLESS = tuple(_HARMLESS.split())

# Names of storages, and the kinds of their numbers.
NUMBERS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}


def is_harmless(path: str) -> bool:
    """Is it a plain name on the list?"""
    return re.fullmatch(r"[\w.]+", path) is not None and any(_under(path, known) for known in HARMLESS)


def _under(path: str, known: str) -> bool:
    return path.startswith(known) if known.endswith(".") else path == known
