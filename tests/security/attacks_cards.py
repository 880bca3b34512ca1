"""Cards of strangers: attacks, each a row of the table in docs/security.md, and as many honest ones."""
# ruff: noqa: E501  (one row each)

import json
from typing import Any

from tests.security.trap import CONVNET, Attack

MAY_NOT = "is no encoder of ours"
OURS = "tests.security.evil_package"
TRUST = ("tests",)
TIMM = "ssl_lightning.models.timm.timm_backbone"
RESNET = "ssl_lightning.models.resnet.resnet"
VIT = "ssl_lightning.models.vit.ViT"
IN_CONTEXT = "ssl_lightning.models.context.InContext"
GRU = {"_target_": "ssl_lightning.models.context.GRUContext", "_partial_": True, "hidden_dim": 4}
WAVES = {"_target_": "ssl_lightning.models.audio.WaveConvNet", "width": 4}


def card(target: Any, /, **arguments: Any) -> dict[str, Any]:
    return {"backbone": {"_target_": target, **arguments}, "out_dim": 16, "image_size": 32, "method": "simclr"}


def timm(**arguments: Any) -> dict[str, Any]:
    return card(TIMM, **({"name": "resnet10t"} | arguments))


def in_context(encoder: Any, context: Any, /, **arguments: Any) -> dict[str, Any]:
    return card(IN_CONTEXT, encoder=encoder, context=context, **arguments)


WEIGHTS = {"_target_": "torchvision.models._api.Weights", "url": "file://{pickle}", "transforms": None, "meta": {}}
WRITER = {"_target_": "ssl_lightning.runs.checkpoint.save_atomic", "obj_or_writer": [1], "path": "{canary}"}
DEEP = json.dumps(card(CONVNET))[:-1] + ', "x": ' + "[" * 60_000 + "]" * 60_000 + "}"

CARDS = [
    Attack("card: torchvision's loader", "unpickle a file", card("torchvision.models._api.WeightsEnum.get_state_dict", self=WEIGHTS, progress=False), MAY_NOT),
    Attack("card: our own writer", "write a file", {"backbone": WRITER}, MAY_NOT),
    Attack("card: torch's importer", "import a module", card("torch.nn.attention._fa4._fa4_import_module", module_path="evil_module"), MAY_NOT),
    Attack("card: a strategy's loader", "unpickle a file", card("lightning.pytorch.strategies.SingleDeviceStrategy.load_checkpoint", self={"_target_": "lightning.pytorch.strategies.SingleDeviceStrategy"}, checkpoint_path="{pickle}", weights_only=False), MAY_NOT),
    Attack("card: a shell", "run a command", card("os.system", command="touch {canary}"), "cannot be named in a card"),
    Attack("card: a trainer", "write a folder", card("lightning.Trainer", default_root_dir="{outside}"), MAY_NOT),
    Attack("card: a logger", "write a file", card("lightning.pytorch.loggers.CSVLogger", save_dir="{outside}"), MAY_NOT),
    Attack("card: one of our losses", "build what is no encoder", card("ssl_lightning.losses.koleo.KoLeo"), MAY_NOT),
    Attack("card: one of our heads", "build what is no encoder", card("ssl_lightning.models.heads.MLP", dims=[3, 4]), MAY_NOT),
    Attack("card: a layer of torch", "build what is no encoder", card("torch.nn.Linear", in_features=3, out_features=4), MAY_NOT),
    Attack("card: a method of ours", "build what is no encoder", card(f"{CONVNET}.load_state_dict", state_dict={}), MAY_NOT),
    Attack("card: behind our builder", "reach builtins", card(f"{RESNET}.__globals__"), MAY_NOT),
    Attack("card: timm's builder", "unpickle a file", card("timm.create_model", model_name="resnet10t", checkpoint_path="{pickle}"), "cannot be named in a card"),
    Attack("card: someone's package", "import a module", card("evil_module.Net"), "trusted_packages=[evil_module]"),
    Attack("card: a node inside", "write a file", card(CONVNET, width=WRITER), "only plain values"),
    Attack("card: a node inside a list", "write a file", card(VIT, depth=[WRITER]), "only plain values"),
    Attack("card: a node beside the backbone", "write a file", card(CONVNET, width=4) | {"mean": [WRITER]}, "not a list of numbers"),
    Attack("card: a partial", "hand out a maker", card(CONVNET, _partial_=True), "only plain arguments"),
    Attack("card: positional arguments", "get round the names", card(CONVNET, _args_=[4]), "only plain arguments"),
    Attack("card: timm's checkpoint", "unpickle a file", timm(checkpoint_path="{pickle}"), "'checkpoint_path'"),
    Attack("card: timm's config", "unpickle a file", timm(pretrained_cfg={"file": "{pickle}"}), "'pretrained_cfg'"),
    Attack("card: timm's overlay", "unpickle a file", timm(pretrained_cfg_overlay={"file": "{pickle}"}), "'pretrained_cfg_overlay'"),
    Attack("card: timm's cache", "write a file", timm(cache_dir="{outside}"), "'cache_dir'"),
    Attack("card: timm's scripting", "change how it is built", timm(scriptable=True), "'scriptable'"),
    Attack("card: timm's download", "fetch a file", timm(pretrained=True), "asks for pretrained weights"),
    Attack("card: timm's download as text", "fetch a file", timm(pretrained="yes"), "asks for pretrained weights"),
    Attack("card: timm's hub", "fetch a model", timm(name="hf-hub:someone/net"), "no network named"),
    Attack("card: timm's other hub", "fetch a model", timm(name="hf_hub:someone/net"), "no network named"),
    Attack("card: timm's folder", "read a foreign folder", timm(name="local-dir:{folder}"), "no network named"),
    Attack("card: a path for a name", "read a foreign folder", card(RESNET, name="../../{pickle}"), "no ResNet named"),
    Attack("card: weights by name", "fetch a file", card(RESNET, name="resnet18", weights="DEFAULT"), "takes no argument 'weights'"),
    Attack("card: code in a name", "put code in the lines that export writes", timm(name='resnet10t"); import os; ("'), "no network named"),
    Attack("card: an immense network", "fill the memory", card(VIT, image_size=32, patch_size=8, dim=10**12), "not a size of a network"),
    Attack("card: no number", "confuse the builder", '{"backbone": {"_target_": "' + CONVNET + '", "width": NaN}}', "not a size of a network"),
    Attack("card: a width of text", "confuse the builder", card(CONVNET, width="wide"), "width wants an integer"),
    Attack("card: a negative width", "confuse the builder", card(CONVNET, width=-4), "is out of range"),
    Attack("card: a list", "confuse the reader", [card(CONVNET)], "does not say which backbone"),
    Attack("card: a text", "confuse the reader", '"os.system"', "does not say which backbone"),
    Attack("card: no JSON", "confuse the reader", "{'backbone': ", "is not JSON"),
    Attack("card: no backbone", "confuse the reader", {"method": "simclr"}, "does not say which backbone"),
    Attack("card: a backbone of text", "confuse the reader", {"backbone": CONVNET}, "does not say which backbone"),
    Attack("card: no class", "confuse the reader", {"backbone": {"width": 4}}, MAY_NOT),
    Attack("card: a number for a class", "confuse the reader", {"backbone": {"_target_": 3}}, MAY_NOT),
    Attack("card: nested without end", "exhaust the stack", DEEP, "long"),
    Attack("card: nested too deeply", "exhaust the stack", card(CONVNET) | {"x": [[[[[[[[[[1]]]]]]]]]]}, "nested too deeply"),
    Attack("card: immense", "fill the memory", card(CONVNET) | {"x": "x" * 200_000}, "characters long"),
    Attack("card: a number of many digits", "stall the reader", '{"backbone": {"width": ' + "9" * 5000 + "}}", "is not JSON"),
    Attack("card: a method of two lines", "forge a line of output", card(CONVNET) | {"method": "x\nall is well"}, "has a method that is not a plain name"),
    Attack("card: an image of no size", "confuse the reader", card(CONVNET) | {"image_size": [1]}, "has an image_size"),
    Attack("card: a writer for an encoder in context", "write a file", in_context(WRITER, GRU), MAY_NOT),
    Attack("card: a writer for a context", "write a file", in_context(WAVES, WRITER), "is no context network of ours"),
    Attack("card: a node inside a context", "write a file", in_context(WAVES, GRU | {"depth": WRITER}), "only plain values"),
    Attack("card: positional arguments of a context", "get round the names", in_context(WAVES, GRU | {"_args_": [4]}), "only plain arguments"),
    Attack("card: more than encoder and context", "write a file", in_context(WAVES, GRU, more=WRITER), "and nothing else"),
    # with a package trusted
    Attack("card, trust: a function", "write a file", card(f"{OURS}.touch", path="{canary}"), "is a function", TRUST),
    Attack("card, trust: an import of its", "fetch a file", card(f"{OURS}.urlretrieve", url="file://{pickle}", filename="{canary}"), "may not be named", TRUST),
    Attack("card, trust: an alias", "run a command", card(f"{OURS}.system", command="touch {canary}"), "may not be named", TRUST),
    Attack("card, trust: no module", "write a file", card(f"{OURS}.Tool", path="{canary}"), "which this place takes", TRUST),
    Attack("card, trust: a private class", "write a file", card(f"{OURS}._Hidden", path="{canary}"), MAY_NOT, TRUST),
    Attack("card, trust: a method", "write a file", card(f"{OURS}.Net.touch", path="{canary}"), "no module", TRUST),
    Attack("card, trust: a node inside", "write a file", card(f"{OURS}.Net", head=WRITER), "no module of tests", TRUST),
    Attack("card, trust: Lightning's class by its door", "write a file", card(f"{OURS}.ModelCheckpoint", dirpath="{outside}"), "may not be named", TRUST),
    *(
        Attack(f"card, trust in {package}", "run a command", card(target, **arguments), "not a package of your own", (package,))
        for package, target, arguments in (
            ("posix", "posix.system", {"command": "touch {canary}"}),
            ("os", "os.system", {"command": "touch {canary}"}),
            ("builtins", "builtins.open", {"file": "{canary}", "mode": "w"}),
            ("subprocess", "subprocess.getoutput", {"cmd": "touch {canary}"}),
            ("timm", "timm.models.load_checkpoint", {"checkpoint_path": "{pickle}"}),
            ("lightning", "lightning.Trainer", {"default_root_dir": "{outside}"}),
            ("ssl_lightning", "ssl_lightning.runs.checkpoint.save_atomic", {"obj_or_writer": [1], "path": "{canary}"}),
        )
    ),
]  # fmt: skip


def run(backbone: Any, **others: Any) -> dict[str, Any]:
    return {
        "backbone": backbone,
        "data": {"image_size": 32},
        "choices": {"method": "simclr", "data": "shapes"},
    } | others


PLAIN = {"_target_": CONVNET, "width": 4}
# The config.yaml of somebody else's unfinished run, which says how its backbone is built.
RUNS = [
    Attack("run: our own writer", "write a file", run(WRITER), MAY_NOT),
    Attack("run: torchvision's loader", "unpickle a file", run(card("torchvision.models._api.WeightsEnum.get_state_dict", self=WEIGHTS, progress=False)["backbone"]), MAY_NOT),
    Attack("run: torch's importer", "import a module", run({"_target_": "torch.nn.attention._fa4._fa4_import_module", "module_path": "evil_module"}), MAY_NOT),
    Attack("run: timm's checkpoint", "unpickle a file", run(timm(checkpoint_path="{pickle}")["backbone"]), "'checkpoint_path'"),
    Attack("run: a node inside", "write a file", run(PLAIN | {"width": WRITER}), "only plain values"),
    Attack("run: its own trust", "trust what the run says", run({"_target_": f"{OURS}.Net"}, trusted_packages=["tests"]), "trusted_packages=[tests]"),
    Attack("run: data of text", "confuse the reader", run({"_target_": "os.system"}, data="x", choices=[1]), "cannot be named in a card"),
    Attack("run: python in yaml", "run a command", "backbone: !!python/object/apply:os.system ['touch {canary}']", "only plain values are read"),
    Attack("run: no yaml", "confuse the reader", "backbone: [", "cannot be read as yaml"),
    Attack("run: names that grow", "fill the memory", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\nbackbone: {_target_: x, y: [*d,*d,*d,*d,*d,*d]}", "too long"),
    Attack("run: a list that holds itself", "hang the reader", "backbone: &a {_target_: x, y: [*a]}", "inside of itself"),
]  # fmt: skip

HONEST = [
    (card(CONVNET, width=4), ()),
    (card(CONVNET), ()),
    (card(CONVNET, width=4) | {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "data": "photos", "seen": {"images": 3}}, ()),
    (card(VIT, image_size=32, patch_size=8, dim=32, depth=1, heads=2), ()),
    (card(VIT, image_size=32, patch_size=8, dim=32, depth=1, heads=2, positions="sincos", layer_scale=None), ()),
    (card(RESNET, name="resnet18", stem="cifar", zero_init_residual=False), ()),
    (card(RESNET, name="resnet18"), ()),
    (in_context(WAVES, GRU), ()),
    (timm(pretrained=False), ()),
    (timm(drop_path_rate=0.1, in_chans=3), ()),
    (card(TIMM, name="vit_tiny_patch16_224", image_size=32, patch_size=8, depth=1, pretrained=False), ()),
    (card(TIMM, name="vit_tiny_patch16_224", image_size=32, patch_size=8, depth=1, init_values=1e-5, class_token=True), ()),
    (card(f"{OURS}.Net"), TRUST),
    (card(f"{OURS}.Net", width=5), ("tests.security",)),
    (card(f"{OURS}.net", width=5), TRUST),
    (card(f"{OURS}.Net", head={"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}), TRUST),
    (card(f"{OURS}.Net", head={"_target_": f"{OURS}.Net", "width": 2}), TRUST),
]  # fmt: skip


# ---- models: what the metadata of a model.safetensors say beside the card --------------------------------------------

CLASSIFY = "ssl_lightning.tasks.classify.Classify"
REGRESS = "ssl_lightning.tasks.regress.Regress"


def model(node: Any = None, /, **changes: Any) -> dict[str, Any]:
    """What a linear classifier of three classes on a network 16 wide says of itself, with changes."""
    task = {"node": {"_target_": CLASSIFY} if node is None else node, "names": ["a", "b", "c"], "statistics": {}}
    whole = {
        "task": task,
        "head": {"kind": "linear", "sizes": [16, 3]},
        "norm": False,
        "scale": 1.0,
        "stage": "finetune",
    }
    return whole | {key: value for key, value in changes.items() if key in whole} | {
        "task": task | {key: value for key, value in changes.items() if key in task}
    }  # fmt: skip


NO_TASK = "is no task of ours"
MODELS = [
    Attack("model: a shell", "run a command", model({"_target_": "os.system", "command": "touch {canary}"}), NO_TASK),
    Attack("model: our own writer", "write a file", model(WRITER), NO_TASK),
    Attack("model: someone's package", "import a module", model({"_target_": "evil_module.Net"}), "trusted_packages=[evil_module]"),
    Attack("model: an encoder for a task", "build what is no task", model({"_target_": CONVNET}), NO_TASK),
    Attack("model: the base of all tasks", "build what is no task", model({"_target_": "ssl_lightning.core.task.Task"}), NO_TASK),
    Attack("model: a helper of the tasks", "build what is no task", model({"_target_": "ssl_lightning.tasks.finetuner.Finetuner"}), "finetuner"),
    Attack("model: behind a task", "reach builtins", model({"_target_": f"{CLASSIFY}.prepare.__globals__"}), NO_TASK),
    Attack("model: a partial", "hand out a maker", model({"_target_": CLASSIFY, "_partial_": True}), "only plain arguments"),
    Attack("model: positional arguments", "get round the names", model({"_target_": CLASSIFY, "_args_": [1]}), "only plain arguments"),
    Attack("model: an argument that is none", "pass what is not taken", model({"_target_": CLASSIFY, "path": "{canary}"}), "path"),
    Attack("model: a node inside", "write a file", model({"_target_": CLASSIFY, "names": WRITER}), "only plain values"),
    Attack("model: no node", "fail within", model([1]), "does not say what its labels mean"),
    Attack("model: names that are nodes", "write a file", model(names=[WRITER]), "names of classes"),
    Attack("model: names without end", "fill the memory", model(names="a" * 100), "names of classes"),
    Attack("model: a long name", "fill the memory", model(names=["a" * 20_000, "b", "c"]), "names of classes"),
    Attack("model: statistics of another name", "replace a method", model(statistics={"forward": [1.0]}), "other statistics"),
    Attack("model: statistics that are texts", "fail within", model({"_target_": REGRESS}, statistics={"mean": "x", "std": [1.0]}), "no numbers"),
    Attack("model: statistics of unequal lists", "fail within", model({"_target_": REGRESS}, statistics={"mean": [[1.0], [1.0, 2.0]], "std": [1.0]}), "no numbers"),
    Attack("model: a huge head", "fill the memory", model(head={"kind": "linear", "sizes": [1_000_000, 1_000_000]}), "1000000"),
    Attack("model: a head of another width", "fail within", model(head={"kind": "linear", "sizes": [32, 3]}), "needs one of [16, 3]"),
    Attack("model: fewer names than outputs", "fail within", model(names=["a"]), "needs one of [16, 1]"),
    Attack("model: a head of no size", "fail within", model(head={"kind": "linear", "sizes": [0, 3]}), "head that is not valid"),
    Attack("model: a head of true", "fail within", model(head={"kind": "linear", "sizes": [True, 3]}), "head that is not valid"),
    Attack("model: a head of another kind", "name a class", model(head={"kind": "os.system", "sizes": [16, 3]}), "head that is not valid"),
    Attack("model: a head of the task that does not fit", "fail within", model(head={"kind": "task", "sizes": [16, 3]}, names=["a"]), "another shape"),
    Attack("model: a scale that is a text", "fail within", model(scale="{canary}"), "scale"),
    Attack("model: a scale without end", "make outputs that are no numbers", model(scale=float("inf")), "scale"),
    Attack("model: a norm that is absent", "fail within", model(norm=True), "norm"),
    Attack("model: a norm that is a node", "write a file", model(norm=WRITER), "norm"),
    Attack("model: a stage that writes to the terminal", "write to the terminal", model(stage="\x1b[2J"), "stage"),
    Attack("model: not JSON", "fail within", "{", "not JSON"),
    Attack("model: nested without end", "fail within", "[" * 60_000, "not JSON"),
    Attack("model: a list", "fail within", "[1, 2]", "does not say its task"),
]  # fmt: skip
