"""The reference of all keys, from `conf/` and the constructors that its values go to."""

import ast
import html
from typing import Any

import yaml
from source import CONF, definition, first_line, header, meanings, read, remarks
from words import TRAINER, WORDS

from ssl_lightning.config import signatures

GROUPS = {
    "data": "What is trained on and evaluated on. `data=folder data.root=photos`",
    "backbone": "The network that is kept. `backbone=resnet18 backbone.stem=cifar`",
    "views": "How an item is augmented. `views=asym views.global_1.blur_p=0.5`",
    "method/loss": "The equation that a method minimises. `method/loss=hard_negative method.loss.beta=2`",
    "optimizer": "How weights move. `optimizer=sgd optimizer.base_lr=0.06`",
    "scheduler": "The learning rate over time. `scheduler.warmup_epochs=5`",
    "stage": "What a command does. `stage=linear ckpt=runs/simclr-shapes`",
    "task": "What labels mean. `task=multilabel`",
    "trainer": "Devices, precision, length, by Lightning's own names. `trainer.devices=4`",
    "callbacks": "What watches and saves a run. `callbacks.checkpoint.every_n_steps=500`, `~callbacks.collapse`",
    "logger": "Where curves go. `logger=[csv,wandb]`",
    "debug": "Short runs that find a fault. `debug=fast`",
}
REMARKED = ("method", "views", "stage", "backbone")  # whose yamls say why a value is what it is
HANDED = ("optimizer", "start", "task", "run")  # by the program, not by a config
HIDDEN = ("_target_", "_partial_", "_args_", "_convert_")


def cell(text: str) -> str:
    return html.escape(text.replace("`", "\0"), quote=False).replace("\0", "`").replace("|", "\\|")


def value(given: Any) -> str:
    """A value as it is written in yaml."""
    given = list(given) if isinstance(given, tuple) else given
    text = yaml.safe_dump(given, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
    return f"`{text}`"


def kind(param: signatures.Param | None) -> str:
    text = ast.unparse(param.annotation) if param is not None and param.annotation is not None else ""
    text = text.replace("typing.", "").replace("Callable[..., ", "Callable[…, ")
    return f"`{text}`" if text else ""


def rows(node: dict[str, Any], said: dict[str, str], place: str, prefix: str = "") -> list[str]:
    """A line of the table for each value of a yaml node, then for those arguments that only the constructor sets."""
    target = str(node.get("_target_", ""))
    signature = signatures.read(target) if target else None
    told = meanings(target) if target else TRAINER if place == "trainer" else {}
    lines = []
    for key, given in node.items():
        if key in HIDDEN:
            continue
        dotted = f"{prefix}{key}"
        param = signature.params.get(key) if signature else None
        remark = said.get(dotted, "")
        known = told.get(key, "") or ("" if remark and place not in REMARKED else WORDS.get(key, ""))
        remark = remark if place in REMARKED or not known else ""  # else it says the same again
        meaning = "; ".join(part for part in (known.rstrip("."), remark) if part)
        if isinstance(given, dict) and ("_target_" in given or place in ("callbacks", "logger")):
            name = given.get("_target_", "").rsplit(".", 1)[-1]
            meaning = meaning or first_line(str(given.get("_target_", ""))).rstrip(".")
            lines.append(f"| `{place}.{dotted}` | {name} | {kind(param)} | {cell(meaning)} |")
            lines += rows(given, said, place, f"{dotted}.")
        else:
            lines.append(f"| `{place}.{dotted}` | {value(given)} | {kind(param)} | {cell(meaning)} |")
    for key, param in (signature.params if signature else {}).items():
        meaning = told.get(key) or (WORDS.get(key) if target.startswith("ssl_lightning") else None)
        if key in node or not meaning or param.default is None or key in HANDED:
            continue
        known = param.default_value()
        default = value(known[0]) if known else f"`{ast.unparse(param.default)}`"
        lines.append(f"| `{place}.{prefix}{key}` | {default} | {kind(param)} | {cell(meaning.rstrip('.'))} |")
    return lines


HEAD = ["| Key | Default | Type | Meaning |", "|---|---|---|---|"]


def table(group: str, name: str, place: str) -> str:
    found = rows(read(group, name), remarks(group, name), place)
    return "\n".join([*HEAD, *found]) if found else "No settings."


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def page(group: str) -> str:
    """The reference of one group: a section for each of its options."""
    place = group.replace("/", ".")
    parts = [f"# {group}", GROUPS[group]]
    for name in options(group):
        node = read(group, name)
        target = str(node.get("_target_", ""))
        lines = header(CONF / group / f"{name}.yaml")
        said = html.escape(" ".join(lines), quote=False)
        origin = f"`{target}`" if definition(target) and target.startswith("ssl_lightning") else ""
        doc = first_line(target) if origin and group not in ("stage",) else ""
        parts += [f"## {group}={name}", said, f"{origin} {cell(doc)}".strip(), table(group, name, place)]
    return "\n\n".join(part for part in parts if part) + "\n"


def index() -> str:
    """The keys that stand above all groups, and where the others are."""
    said = remarks("", "config")
    top = yaml.safe_load((CONF / "config.yaml").read_text())
    lines = [
        f"| `{k}` | {value(v)} | {cell(said.get(k, ''))} |" for k, v in top.items() if k not in ("defaults", "hydra")
    ]
    chosen = {}
    for entry in top["defaults"]:
        if isinstance(entry, dict):
            chosen |= entry
    groups = [
        f"| [{group}](config/{group.replace('/', '_')}.md) | {value(chosen[group]) if group in chosen else ''} | {x} |"
        for group, x in GROUPS.items()
    ]
    return "\n".join(
        [
            "# Reference of all keys",
            "",
            "These pages are made from `conf/` and the constructors each time the site is built. Any argument of a",
            "constructor can be set from the command line by its place, whether a yaml states it or not.",
            "`python -m ssl_lightning --cfg job` prints the whole config of a command; `--help` lists the groups.",
            "",
            "## Keys of the whole run",
            "",
            "| Key | Default | Meaning |",
            "|---|---|---|",
            *lines,
            "",
            "## Groups",
            "",
            "| Group | Default | What |",
            "|---|---|---|",
            f"| [method](../methods/index.md) | {value(chosen['method'])} | What is learned: a page each |",
            *groups,
            "",
        ]
    )
