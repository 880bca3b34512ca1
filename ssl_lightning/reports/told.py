"""What was run, on what, at which cost, and what to do next: the facts of a page in tables."""

from collections.abc import Mapping
from typing import Any

from ssl_lightning.core import words
from ssl_lightning.reports import html, names
from ssl_lightning.reports.axes import number
from ssl_lightning.reports.look import Look
from ssl_lightning.reports.read import Run

CLASSES = 12  # names that are listed
NO_COMMAND = "The command of this run is not on record; config.yaml has all its settings."


def what(run: Run, look: Look) -> str:
    """The command to repeat it, and tables of data, network, training and cost."""
    words = run.kept.about.get("command")
    tables = [
        ("Data", data(run)),
        ("Network", network(run)),
        ("Training", training(run, look)),
        ("Cost and versions", cost(run)),
    ]
    cards = "".join(
        f'<div class="card"><h3>{title}</h3>{table}</div>' for title, rows in tables if (table := html.facts(rows))
    )
    protocol = html.facts([*_mapping(run.results.get("protocol")).items()])
    measured = html.details("How the results were measured", f'<div class="card">{protocol}</div>') if protocol else ""
    begun = html.code(names.command(words)) if isinstance(words, list) else f'<p class="note">{NO_COMMAND}</p>'
    return begun + f'<div class="grid2">{cards}</div>{measured}'


def data(run: Run) -> list[tuple[str, Any]]:
    """Name, kind, counts and classes."""
    about = run.kept.about
    classes: list[Any] = about["classes"] if isinstance(about.get("classes"), list) else []
    listed = ", ".join(str(name) for name in classes[:CLASSES]) + (", ..." if len(classes) > CLASSES else "")
    probe = about.get("probe_count")
    return [
        ("name", run.results.get("data") or run.choices.get("data")),
        ("kind", about.get("modality")),
        ("training items", counted(about.get("train_count"))),
        ("labelled training items", counted(probe) if probe != about.get("train_count") else None),
        ("test items", counted(about.get("test_count"))),
        ("classes", f"{len(classes)}: {listed}" if classes else "none" if about else None),
        ("views", run.choices.get("views")),
        ("batch", counted(_at(run.config, "data", "batch_size"))),
        ("input", _input(about)),
    ]


def network(run: Run) -> list[tuple[str, Any]]:
    """Backbone, parameters, width."""
    about = run.kept.about
    return [
        ("backbone", run.choices.get("backbone") or about.get("network")),
        ("parameters of the backbone", counted(about.get("backbone_parameters"))),
        ("with heads and teacher", counted(about.get("parameters"))),
        ("width of the features", about.get("out_dim") or run.results.get("out_dim")),
        ("image size", _at(run.config, "data", "image_size")),
        ("weights from", run.results.get("ckpt")),
    ]


def training(run: Run, look: Look) -> list[tuple[str, Any]]:
    """Method, optimizer, epochs, steps."""
    steps = run.results.get("steps") or (int(max(row["step"] for row in run.rows)) + 1 if run.rows else None)
    rate = look.number("optimizer", "base_lr")
    return [
        ("method", words.method(run.results.get("method") or run.choices.get("method") or "")),
        ("optimizer", run.choices.get("optimizer")),
        ("base rate", f"{rate:g}" if rate is not None and run.rows else None),
        ("epochs", run.results.get("epochs")),
        ("steps", counted(steps)),
        ("seed", run.results.get("seed", run.config.get("seed"))),
        ("labels used", counted(run.results.get("labels"))),
    ]


def cost(run: Run) -> list[tuple[str, Any]]:
    """Device, time, speed, memory, versions."""
    about, results = run.kept.about, run.results
    seconds, memory = results.get("seconds"), results.get("peak_memory_mb")
    rate = results.get("samples_per_second") or results.get("images_per_second")
    world = about.get("world")
    versions = _mapping(about.get("versions"))
    return [
        ("device", about.get("device")),
        ("processes", world if world != 1 else None),
        ("precision", _at(run.config, "trainer", "precision")),
        ("time", f"{number(seconds)} s" if isinstance(seconds, int | float) else None),
        ("speed", f"{number(rate)} {about.get('noun') or 'item'}s a second" if rate else None),
        ("peak memory", f"{number(memory)} MB" if isinstance(memory, int | float) and memory else None),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def after(run: Run) -> str:
    """The next two commands, ready to paste."""
    home, stage = names.home(run.config), str(run.results.get("stage") or "")
    origin = str(run.results.get("ckpt") or home)
    labelled, finetune = bool(run.kept.about.get("labelled", True)), ["stage=finetune", f"ckpt={home}"]
    if not run.done:
        words = run.kept.about.get("command")
        steps = [("If it stops, the same command goes on where it stopped.", words if isinstance(words, list) else [])]
    elif stage == "pretrain" and labelled:
        steps = [
            ("A linear probe on the frozen features, the usual figure of papers.", ["stage=linear", f"ckpt={home}"]),
            ("The whole network on a hundredth of the labels.", [*finetune, "data.label_fraction=0.01"]),
        ]
    elif stage == "pretrain":
        steps = [
            ("The features of every item, in files for your own code.", ["stage=embed", f"ckpt={home}"]),
            ("The backbone for code without this package.", ["stage=export", f"ckpt={home}"]),
        ]
    elif stage in ("finetune", "predict"):
        model = f"ckpt={home if stage == 'finetune' else origin}"
        kind = str(run.kept.about.get("modality") or "image")
        files = f"data={'folder' if kind == 'image' else kind}"  # the model's own data may know no folder
        steps = [
            ("What it says of each file of another folder.", ["stage=predict", model, files, "data.root=FOLDER"]),
            ("The model for code without this package.", ["stage=export", model]),
        ]
    else:
        first = "knn" if stage == "linear" else "linear"
        steps = [
            ("The same backbone, read out in another way.", [f"stage={first}", f"ckpt={origin}"]),
            ("And on.", ["stage=finetune", f"ckpt={origin}"]),
        ]
    drawn = "".join(
        f'<p class="note">{html.escape(why)}</p>{html.code(names.command(words)) if words else ""}'
        for why, words in steps
    )
    return f'<div class="card">{drawn}</div>'


def counted(value: Any) -> str | None:
    """A whole number with its thousands apart."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else None


def _input(about: Mapping[str, Any]) -> str | None:
    mean, std = about.get("input_mean"), about.get("input_std")
    if not isinstance(mean, int | float) or not isinstance(std, int | float):
        return None
    return f"mean {mean:.2f}, standard deviation {std:.2f}"


def _at(config: Mapping[str, Any], *keys: str) -> Any:
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
