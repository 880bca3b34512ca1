"""Names in configs: attacks, each a row of the table in docs/security.md, and as many honest ones."""
# ruff: noqa: E501  (one row each)

from typing import Any

from tests.security.trap import Attack

MAY_NOT = "may not be named in a config"
OURS = "tests.security.evil_package"
TRUST = ("tests",)


def node(target: Any, /, **arguments: Any) -> dict[Any, Any]:
    return {"_target_": target, **arguments}


CHECKPOINT_IO = "ssl_lightning.callbacks.checkpoint.AtomicCheckpointIO"
SINGLE = "lightning.pytorch.strategies.SingleDeviceStrategy"
CALLBACKS, LOGGERS = "lightning.pytorch.callbacks", "lightning.pytorch.loggers"
INSIDE = "leads out of the run's folder"

NAMES = [
    # functions
    Attack("our own writer", "write a file", node("ssl_lightning.runs.checkpoint.save_atomic", obj_or_writer=[1], path="{canary}"), MAY_NOT),
    Attack("our own copier", "write a file", node("ssl_lightning.runs.checkpoint.save_backbone", backbone=node("ssl_lightning.models.convnet.ConvNetSmall", width=4), config={}, folder="{outside}"), MAY_NOT),
    Attack("torch's importer", "import a module", node("torch.nn.attention._fa4._fa4_import_module", module_path="evil_module"), "begins with an underscore"),
    Attack("a shell", "run a command", node("os.system", command="touch {canary}"), "cannot be trusted"),
    Attack("a shell by its C name", "run a command", node("posix.system", command="touch {canary}"), "cannot be trusted"),
    Attack("a process", "run a command", node("subprocess.run", args=["touch", "{canary}"]), "cannot be trusted"),
    Attack("an evaluator", "run code", node("builtins.eval", source="open('{canary}', 'w')"), "cannot be trusted"),
    Attack("an importer", "import a module", node("importlib.import_module", name="evil_module"), "cannot be trusted"),
    Attack("a downloader", "fetch a file", node("urllib.request.urlretrieve", url="file://{pickle}", filename="{canary}"), "cannot be trusted"),
    Attack("an unpickler", "unpickle a file", node("torch.load", f="{pickle}", weights_only=False), MAY_NOT),
    Attack("hydra's caller", "call any function", node("hydra.utils.call", config=node("os.system", command="touch {canary}")), "cannot be trusted"),
    Attack("timm's builder", "unpickle a file", node("timm.create_model", model_name="resnet10t", checkpoint_path="{pickle}"), MAY_NOT),
    Attack("torchvision's builder", "fetch weights", node("torchvision.models.resnet18", weights="DEFAULT"), MAY_NOT),
    Attack("torchvision's loader", "unpickle a file", node("torchvision.models._api.WeightsEnum.get_state_dict", self=node("torchvision.models._api.Weights", url="file://{pickle}", transforms=None, meta={}), progress=False), MAY_NOT),
    Attack("our sweep's process", "run a command", node("ssl_lightning.cli.sweep.run_process", command=["touch", "{canary}"]), MAY_NOT),
    Attack("a shapes cache", "write a file", node("ssl_lightning.modalities.image.sources.shapes.drawn_once", count=1, image_size=8, seed=0, split="x"), "is a function"),
    Attack("a picture's writer", "write a file", node("ssl_lightning.callbacks.view_mosaic.show", columns=[], path="{canary}", trainer=None, rows=1), "is a function"),
    Attack("timm's maker of optimizers", "call a function", node("timm.optim.create_optimizer_v2", model_or_params=[], opt="sgd"), "is a function"),
    Attack("a function that returns a tensor", "call a function", node("torch.nn.functional.relu", input=1), MAY_NOT),
    # methods of classes, and what lies behind a class or an import
    Attack("a strategy's loader", "unpickle a file", node(f"{SINGLE}.load_checkpoint", self=node(SINGLE), checkpoint_path="{pickle}", weights_only=False), MAY_NOT),
    Attack("a writer's method", "write a file", node(f"{CHECKPOINT_IO}.save_checkpoint", self=node(CHECKPOINT_IO), checkpoint={}, path="{canary}"), MAY_NOT),
    Attack("a logger's method", "write a file", node("ssl_lightning.callbacks.metrics_csv.MetricsCSV.log_metrics", self=node("ssl_lightning.callbacks.metrics_csv.MetricsCSV", run_path="{outside}"), metrics={"a": 1}), MAY_NOT),
    Attack("globals of a method", "reach builtins", node("torch.nn.Linear.__init__.__globals__"), "begins with an underscore"),
    Attack("a module behind a module", "unpickle a file", node("torch.nn.functional.torch.load", f="{pickle}", weights_only=False), MAY_NOT),
    Attack("an import of ours", "delete a file", node("ssl_lightning.runs.folder.os.remove", path="{pickle}"), MAY_NOT),
    Attack("a private class", "build what is no one's business", node("ssl_lightning.optim.recipe._Schedules"), "begins with an underscore"),
    # classes of no place
    Attack("our run folder", "write a folder", node("ssl_lightning.runs.folder.RunFolder", path="{outside}"), MAY_NOT),
    Attack("our ledger", "write a file", node("ssl_lightning.cli.ledger.Ledger", path="{canary}"), MAY_NOT),
    Attack("our keeper of the best", "write a file", node("ssl_lightning.stages.training.KeepBest", path="{canary}"), MAY_NOT),
    Attack("another trainer", "write a folder", node("lightning.Trainer", default_root_dir="{outside}"), MAY_NOT),
    Attack("Lightning's reader of checkpoints", "unpickle on resume", node("lightning.pytorch.plugins.io.TorchCheckpointIO"), MAY_NOT),
    Attack("a metric that fetches a network", "fetch weights", node("torchmetrics.image.fid.FrechetInceptionDistance", feature_extractor_weights_path="{pickle}"), MAY_NOT),
    Attack("a metric of text", "fetch a model", node("torchmetrics.text.bert.BERTScore", model_name_or_path="{folder}"), MAY_NOT),
    Attack("a callback made of functions", "call any function", node(f"{CALLBACKS}.LambdaCallback", on_fit_start=node("os.system", _partial_=True, command="touch {canary}")), MAY_NOT),
    Attack("a callback that writes", "write a file", node(f"{CALLBACKS}.SpikeDetection", exclude_batches_path="{canary}"), MAY_NOT),
    Attack("a strategy with a file", "read a config from a file", node("lightning.pytorch.strategies.DeepSpeedStrategy", config="{folder}/ds.json"), MAY_NOT),
    Attack("a logger with an address", "send results away", node(f"{LOGGERS}.MLFlowLogger", tracking_uri="file://{outside}"), MAY_NOT),
    Attack("Lightning's own W&B logger", "send files away", node(f"{LOGGERS}.WandbLogger", save_dir="{outside}", log_model=True), MAY_NOT),
    # arguments of classes that may be named
    Attack("checkpoints elsewhere", "write a file", node(f"{CALLBACKS}.ModelCheckpoint", dirpath="{outside}"), INSIDE),
    Attack("a checkpoint's name", "write a file", node(f"{CALLBACKS}.ModelCheckpoint", filename="../../outside/x"), INSIDE),
    Attack("a log elsewhere", "write a file", node(f"{LOGGERS}.CSVLogger", save_dir="{outside}"), INSIDE),
    Attack("a log's version", "write a file", node(f"{LOGGERS}.TensorBoardLogger", save_dir="logs", version="../../outside"), INSIDE),
    Attack("a remote log", "send results away", node(f"{LOGGERS}.TensorBoardLogger", save_dir="memory://x"), INSIDE),
    Attack("a profile elsewhere", "write a file", node("lightning.pytorch.profilers.SimpleProfiler", dirpath="{outside}", filename="x"), INSIDE),
    Attack("our log elsewhere", "write a file", node("ssl_lightning.callbacks.metrics_csv.MetricsCSV", run_path="{outside}"), "not for a config to set"),
    Attack("our checkpoint elsewhere", "write a file", node("ssl_lightning.callbacks.checkpoint.Checkpoint", run_path="{outside}"), "not for a config to set"),
    Attack("timm: a checkpoint", "unpickle a file", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", checkpoint_path="{pickle}"), "backbone.checkpoint_path"),
    Attack("timm: a config", "unpickle a file", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", pretrained=True, pretrained_cfg={"file": "{pickle}"}), "backbone.pretrained_cfg"),
    Attack("timm: an overlay", "unpickle a file", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", pretrained=True, pretrained_cfg_overlay={"file": "{pickle}"}), "backbone.pretrained_cfg_overlay"),
    Attack("timm: a cache", "write a file", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", pretrained=True, cache_dir="{outside}"), "backbone.cache_dir"),
    Attack("timm: a folder", "read a foreign folder", node("ssl_lightning.models.timm.timm_backbone", name="local-dir:{folder}"), "no network named"),
    Attack("timm: a hub", "fetch a model", node("ssl_lightning.models.timm.timm_backbone", name="hf-hub:someone/net"), "no network named"),
    # words of hydra's, and names that are none
    Attack("positional arguments", "get round the names", node("torch.nn.Linear", _args_=[3, 4]), "takes no argument '_args_'"),
    Attack("hydra's switches", "change how it is built", node("torch.nn.Flatten", _recursive_=False), "takes no argument '_recursive_'"),
    Attack("hydra's conversion", "change how it is built", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", _convert_="all"), "takes no argument '_convert_'"),
    Attack("a partial of text", "confuse the builder", node("torch.nn.Flatten", _partial_="os.system"), "_partial_ is true or false"),
    Attack("a name of two lines", "forge a line of output", node("os.system\nall is well"), "not the dotted name"),
    Attack("wide letters", "look like another name", node("ｏｓ.system", command="touch {canary}"), MAY_NOT),
    Attack("a list for a name", "confuse the check", node(["os", "system"]), MAY_NOT),
    Attack("a relative name", "climb out of a package", node("..os.system"), MAY_NOT),
    Attack("an argument of no name", "confuse the check", node("torch.nn.Flatten") | {1: 2}, "takes no argument 1"),
    Attack("deep inside a value", "hide in a list", node("torch.nn.Flatten", start_dim=[[node("os.system", command="touch {canary}")]]), "start_dim wants"),
    Attack("deep inside an open value", "hide in a mapping", node("lightning.pytorch.strategies.DDPStrategy", timeout={"a": [node("os.system", command="touch {canary}")]}), MAY_NOT),
    # with a package trusted
    Attack("trust: a function", "write a file", node(f"{OURS}.touch", path="{canary}"), "is a function", TRUST),
    Attack("trust: no stage", "write a file", node(f"{OURS}.touch_run", path="{canary}"), "is a function", TRUST),
    Attack("trust: a class of no base", "write a file", node(f"{OURS}.Tool", path="{canary}"), "which this place takes", TRUST),
    Attack("trust: a private class", "write a file", node(f"{OURS}._Hidden", path="{canary}"), "begins with an underscore", TRUST),
    Attack("trust: a method", "write a file", node(f"{OURS}.Net.touch", path="{canary}"), "no module", TRUST),
    Attack("trust: an import of its", "fetch a file", node(f"{OURS}.urlretrieve", url="file://{pickle}", filename="{canary}"), MAY_NOT, TRUST),
    Attack("trust: an alias", "run a command", node(f"{OURS}.system", command="touch {canary}"), MAY_NOT, TRUST),
    Attack("trust: a module it imported", "run a command", node(f"{OURS}.os.system", command="touch {canary}"), "no module", TRUST),
    Attack("trust: Lightning's class by its door", "write a file", node(f"{OURS}.ModelCheckpoint", dirpath="{outside}"), MAY_NOT, TRUST),
    *(
        Attack(f"trust in {package}", "run a command", node(target, **arguments), "not a package of your own", (package,))
        for package, target, arguments in (
            ("os", "os.system", {"command": "touch {canary}"}),
            ("posix", "posix.system", {"command": "touch {canary}"}),
            ("builtins", "builtins.open", {"file": "{canary}", "mode": "w"}),
            ("subprocess", "subprocess.Popen", {"args": ["touch", "{canary}"]}),
            ("torch", "torch.load", {"f": "{pickle}", "weights_only": False}),
            ("torch.hub", "torch.hub.load_state_dict_from_url", {"url": "file://{pickle}"}),
            ("joblib", "joblib.load", {"filename": "{pickle}"}),
            ("numpy", "numpy.load", {"file": "{pickle}", "allow_pickle": True}),
            ("ssl_lightning", "ssl_lightning.runs.checkpoint.save_atomic", {"obj_or_writer": [1], "path": "{canary}"}),
        )
    ),
    Attack("trust in no name", "trust everything", node("os.system", command="touch {canary}"), "not the name of a package", ("",)),
    Attack("trust in a private name", "run a command", node("_posixsubprocess.fork_exec"), "not the name of a package", ("_posixsubprocess",)),
]  # fmt: skip

WRITER = node("ssl_lightning.runs.checkpoint.save_atomic", obj_or_writer=[1], path="{canary}")
PROFILER = node("lightning.pytorch.profilers.SimpleProfiler", dirpath="{outside}", filename="x")
# Experiments in a folder given by --config-dir: what each sets.
EXPERIMENTS = [
    Attack("experiment: the loss", "write a file", {"method": {"loss": WRITER}}, "method.loss: "),
    Attack("experiment: the stage", "write a file", {"stage": WRITER}, "stage: "),
    Attack("experiment: the backbone", "write a file", {"backbone": WRITER}, "backbone: "),
    Attack("experiment: the data", "write a file", {"data": WRITER}, "data: "),
    Attack("experiment: a trainer of its own", "write a folder", {"trainer": {"_target_": "lightning.Trainer", "default_root_dir": "{outside}"}}, "takes no argument"),
    Attack("experiment: the trainer's folder", "write a folder", {"trainer": {"default_root_dir": "{outside}"}}, "not for a config to set"),
    Attack("experiment: an upload", "send checkpoints away", {"trainer": {"model_registry": "someone/net"}}, "not for a config to set"),
    Attack("experiment: the trainer's callbacks", "write a file", {"trainer": {"callbacks": [WRITER]}}, "not for a config to set"),
    Attack("experiment: a profile elsewhere", "write a file", {"trainer": {"profiler": PROFILER}}, INSIDE),
    Attack("experiment: another logger's folder", "write a file", {"trainer": {"logger": [node("ssl_lightning.callbacks.metrics_csv.MetricsCSV", run_path="{outside}")]}}, "not for a config to set"),
    Attack("experiment: a plugin", "unpickle on resume", {"trainer": {"plugins": [node("lightning.pytorch.plugins.io.TorchCheckpointIO")]}}, MAY_NOT),
    Attack("experiment: a strategy's reader", "unpickle on resume", {"trainer": {"strategy": node(SINGLE, device="cpu", checkpoint_io=node("lightning.pytorch.plugins.io.TorchCheckpointIO"))}}, "trainer.strategy.checkpoint_io: "),
    Attack("experiment: a callback", "write a file", {"callbacks": {"x": WRITER}}, "callbacks.x: "),
    Attack("experiment: a list for callbacks", "confuse the builder", {"callbacks": [WRITER]}, "experiment/evil"),
    Attack("experiment: no callback at all", "confuse the builder", {"callbacks": {"x": {"path": "{canary}"}}}, "has no _target_"),
    Attack("experiment: a loss for a callback", "confuse the trainer", {"callbacks": {"x": node("torch.nn.Flatten")}}, "callbacks.x: "),
    Attack("experiment: a logger elsewhere", "write a file", {"logger": {"x": node(f"{LOGGERS}.CSVLogger", save_dir="{outside}")}}, INSIDE),
]  # fmt: skip

LINEAR = node("torch.nn.Linear", in_features=2, out_features=2)
HONEST: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("method.loss", node("torch.nn.CrossEntropyLoss", label_smoothing=0.1), ()),
    ("method.loss", node("torch.nn.modules.loss.SmoothL1Loss", beta=2.0), ()),
    ("method.loss", node("ssl_lightning.losses.nt_xent.NTXent", temperature=0.2), ()),
    ("method.projector", node("torch.nn.Linear", _partial_=True, out_features=8), ()),
    ("method.metric", node("torchmetrics.classification.MulticlassAccuracy", num_classes=3), ()),
    ("method.metric", node("torchmetrics.regression.MeanSquaredError"), ()),
    ("backbone", node("ssl_lightning.models.resnet.resnet", name="resnet18", stem="cifar"), ()),
    ("backbone", node("ssl_lightning.models.timm.timm_backbone", name="resnet10t", drop_path_rate=0.1), ()),
    ("backbone", node("ssl_lightning.models.vit.ViT", image_size=32, patch_size=8, dim=32, depth=1, heads=2), ()),
    ("backbone", node(f"{OURS}.Net", width=3), TRUST),
    ("backbone", node(f"{OURS}.Net", head=LINEAR), TRUST),
    ("backbone", node(f"{OURS}.net", width=3), TRUST),
    ("backbone", node("tests.security.evil_package.Net"), ("tests.security",)),
    ("optimizer.optimizer", node("torch.optim.SGD", _partial_=True, momentum=0.9, nesterov=True), ()),
    ("optimizer.optimizer", node("torch.optim.NAdam", _partial_=True, betas=[0.9, 0.95]), ()),
    ("optimizer.optimizer", node("torch.optim.Adafactor", _partial_=True), ()),
    ("optimizer.optimizer", node("timm.optim.Lamb", _partial_=True), ()),
    ("optimizer.optimizer", node("timm.optim.Lion", _partial_=True, betas=[0.9, 0.99]), ()),
    ("optimizer", node("ssl_lightning.optim.recipe.OptimizerRecipe", optimizer=node("torch.optim.AdamW", _partial_=True), base_lr=1e-3, weight_decay=0.0, scheduler=node("ssl_lightning.optim.schedules.Constant")), ()),
    ("callbacks.x", node(f"{CALLBACKS}.EarlyStopping", monitor="val/probe_top1", mode="max"), ()),
    ("callbacks.x", node(f"{CALLBACKS}.early_stopping.EarlyStopping", monitor="val/loss"), ()),
    ("callbacks.x", node(f"{CALLBACKS}.LearningRateMonitor", logging_interval="step"), ()),
    ("callbacks.x", node(f"{CALLBACKS}.Timer", duration="00:12:00:00"), ()),
    ("callbacks.x", node(f"{CALLBACKS}.ModelCheckpoint", filename="{epoch}-{step}", dirpath="extra", every_n_epochs=5), ()),
    ("callbacks.x", node(f"{CALLBACKS}.DeviceStatsMonitor"), ()),
    ("callbacks.x", node("ssl_lightning.callbacks.collapse.Collapse"), ()),
    ("logger.x", node(f"{LOGGERS}.CSVLogger", save_dir="more"), ()),
    ("logger.x", node(f"{LOGGERS}.TensorBoardLogger", save_dir="tb", name="run", version=""), ()),
    ("trainer.strategy", node("lightning.pytorch.strategies.DDPStrategy", find_unused_parameters=False, static_graph=True), ()),
    ("trainer.strategy", node("lightning.pytorch.strategies.FSDPStrategy", sharding_strategy="FULL_SHARD"), ()),
    ("trainer.profiler", node("lightning.pytorch.profilers.SimpleProfiler", filename="times"), ()),
    ("trainer.profiler", node("lightning.pytorch.profilers.AdvancedProfiler", dirpath="profile", filename="calls"), ()),
    ("trainer.profiler", node("lightning.pytorch.profilers.PyTorchProfiler", filename="trace"), ()),
    ("data", node("ssl_lightning.modalities.image.sources.folder.Folder", root="/data/photos"), ()),
    ("views", node("ssl_lightning.modalities.image.views.Views", global_1=node("ssl_lightning.modalities.image.views.View", size=32)), ()),
]  # fmt: skip
