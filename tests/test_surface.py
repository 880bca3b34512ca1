"""What users type and import: names may be added, none may go; a renamed one needs an alias and a changelog line."""

import ast
import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import ssl_lightning
from ssl_lightning.cli.compose import Settings
from ssl_lightning.config import aliases, signatures

CONF = Path(__file__).parents[1] / "conf"

PUBLIC = """Batch DataModule Embedded Encoder MapEncoder Model Padded Predictions Run SSLMethod StepOutput Task
TokenEncoder UserError Views __version__ chunk concat embed evaluate finetune gather load_backbone load_model load_run
load_weights predict pretrain save_backbone"""
# What one's own code builds from, each importable from its room.
ROOMS = {
    "methods": """BYOL BarlowTwins CPC Colorization DINO Data2Vec DeepClusterV2 DenseCL IBOT IJEPA Jigsaw LeJEPA MAE MSN
        MoCo MoCoV3 NNCLR ReSSL RelativePosition Rotation SSLMethod SimCLR SimMIM SimSiam SupCon Supervised SwAV
        TiCo""",
    "losses": """BYOLLoss BarlowTwinsLoss CPCLoss ColorLoss DCL DINOLoss HardNegative InfoNCE KoLeo MSNLoss
        MaskedPatchLoss MaskedPixelLoss NTXent ReSSLLoss SIGReg SupConLoss SwAVLoss TiCoLoss VICRegLoss WMSELoss""",
    "models": """ConvNetSmall DINOHead GRUContext InContext MAEDecoder MLP MelConvNet MelViT ResNet RowContext
        TokenPredictor Transformer1d TransformerContext ViT WaveConvNet timm_backbone""",
    "parts": """Center ColorBins EMATeacher Queue SinkhornCenter Teacher block_mask cut_tiles patchify spherical_kmeans
        unpatchify""",
    "optim": "Constant LARS OptimizerRecipe WarmupCosine",
    "modalities.image": """Array CIFAR10 CIFAR100 Coco DataModule DeviceViews EvalView Folder LocalView Operation STL10
        Shapes VOC View Views""",
    "modalities.audio": """Audio AudioDataModule AudioEvalView AudioView AudioViews DeviceAudioViews LocalAudioView
        LogMel Tones""",
}
KEYS = "name runs_dir seed ckpt resume deterministic trusted_packages"
CHOICES = {
    "method": """barlow_twins byol colorization cpc data2vec dcl deepcluster_v2 densecl dino dinov2 ibot ijepa jigsaw
        lejepa mae moco moco_v1 moco_v3 msn nnclr relative_position ressl rotation simclr simmim simsiam supcon
        supervised swav tico vicreg wmse""",
    "data": "array audio audio_wave cifar10 cifar100 coco folder shapes stl10 tones voc",
    "stage": """attention detect doctor embed export finetune invariance knn label_curve linear predict pretrain
        quality retrieve
        segment transfer""",
    "task": "classify detect multilabel regress segment transcribe",
    "backbone": """convnet_small mel_convnet resnet18 resnet34 resnet50 timm transformer1d vit_base vit_mel vit_small
        vit_tiny wave_convnet""",
    "optimizer": "adam adamw lars sgd",
    "scheduler": "constant warmup_cosine",
    "trainer": "auto cpu ddp ddp_cpu gpu",
    "callbacks": "default minimal",
    "logger": "csv tensorboard wandb",
    "debug": "fast overfit profile",
}


def test_the_public_names_are_there_and_said_to_be() -> None:
    assert set(PUBLIC.split()) == set(ssl_lightning.__all__)  # a new one is added here
    assert set(PUBLIC.split()) <= set(dir(ssl_lightning))
    for name in PUBLIC.split():
        assert getattr(ssl_lightning, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssl_lightning.nothing


def test_types_and_configs_are_told_of_the_same_names() -> None:
    """The imports for type checkers, which are also what a config's check reads, and the table for running code."""
    tree = ast.parse(Path(ssl_lightning.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert told == {name: f"ssl_lightning.{home}" for name, home in ssl_lightning._HOMES.items()}
    for name, home in told.items():
        assert getattr(ssl_lightning, name) is getattr(importlib.import_module(str(home)), str(name))
    found = signatures.find("ssl_lightning.SSLMethod")
    assert found is not None
    assert found[0] == "ssl_lightning.methods.base"


@pytest.mark.parametrize("room", ROOMS)
def test_what_code_of_ones_own_builds_from(room: str) -> None:
    package = importlib.import_module(f"ssl_lightning.{room}")
    assert set(ROOMS[room].split()) == set(package.__all__)  # a new one is added here
    assert set(package.__all__) <= set(dir(package))
    told = {}
    for node in ast.walk(ast.parse(Path(str(package.__file__)).read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"ssl_lightning.{room}."):
            told |= {alias.name: node.module for alias in node.names}
    assert told == {name: f"ssl_lightning.{room}.{home}" for name, home in package._HOMES.items()}
    for name, home in told.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
        assert getattr(package, name).__module__.startswith(f"ssl_lightning.{room}."), f"{name} is at home elsewhere"
        assert not (Path(str(package.__file__)).parent / f"{name}.py").exists(), f"{name} is a module, too"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_every_class_of_a_method_and_of_a_loss_is_one_of_them() -> None:
    for group, key in (("method", "_target_"), ("method", "loss")):
        for file in sorted((CONF / group).glob("*.yaml")):
            node = yaml.safe_load(file.read_text())
            node = node.get(group, node)
            target = node.get(key) if key == "_target_" else (node.get("loss") or {}).get("_target_")
            if target and not target.startswith("torch."):
                room, _, name = target.removeprefix("ssl_lightning.").partition(".")
                assert name.rpartition(".")[2] in ROOMS[room].split(), f"{file.name}: {target}"


def test_a_public_name_is_no_module_and_never_was_one() -> None:
    """Importing a module puts it into the package, in the place of whatever has its name."""
    rooms = {path.stem for path in Path(ssl_lightning.__file__).parent.iterdir()}
    former = {old.split(".")[1] for old in aliases.MODULES}
    assert not set(ssl_lightning._HOMES) & (rooms | former)


def test_importing_the_package_and_listing_it_loads_nothing_heavy() -> None:
    code = """
import sys, ssl_lightning
from ssl_lightning import losses, methods, modalities, models, optim, parts
import ssl_lightning.modalities.image, ssl_lightning.modalities.audio
dir(ssl_lightning), dir(methods), dir(losses), ssl_lightning.UserError
print(*(name for name in ("torch", "lightning", "numpy", "hydra", "yaml") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_keys_at_the_top() -> None:
    assert set(KEYS.split()) <= {field.name for field in fields(Settings)}


@pytest.mark.parametrize("group", CHOICES)
def test_what_a_command_line_can_choose(group: str) -> None:
    assert set(CHOICES[group].split()) <= {path.stem for path in (CONF / group).glob("*.yaml")}
