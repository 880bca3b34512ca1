"""What the methods' pages take from the code when they are built: step, recipes, numbers seen here, keys."""

import json
import re
import textwrap
from typing import Any

import yaml
from reference import HEAD, cell, rows
from source import CONF, ROOT, read, remarks, step

FAMILIES = {
    "contrastive": "Contrastive",
    "teacher": "Student and teacher",
    "redundancy": "Without negatives, by statistics",
    "clustering": "Clusters",
    "masked": "Masked",
    "pretext": "Pretext tasks",
    "baseline": "Not self-supervised",
}
NAMES = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
SEEN = {
    "cifar10_cpu": "CIFAR-10 (JPEG files)",
    "shapes_cpu": "`shapes` (built in)",
}
MEASURES = {"top1": "top-1", "detect_map": "mAP", "segment_miou": "mIoU"}  # of published numbers


def front(name: str) -> dict[str, Any]:
    """The settings that a method's page begins with: `title`, `family`, `about`."""
    found = re.match(r"---\n(.*?)\n---\n", (ROOT / "docs" / "methods" / f"{name}.md").read_text(), flags=re.S)
    assert found is not None, f"docs/methods/{name}.md begins with no settings"
    return dict(yaml.safe_load(found[1]))


def by_family() -> dict[str, list[str]]:
    return {family: [name for name in NAMES if front(name)["family"] == family] for family in FAMILIES}


def paper(name: str) -> str:
    """The first address of a paper in the method's yaml."""
    return re.findall(r"https://arxiv\.org/abs/[\d.]+\d", (CONF / "method" / f"{name}.yaml").read_text())[0]


def expected(path: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The published numbers that a recipe's comment states, and its remarks (`Differs`, `Cost`)."""
    lines = [
        line[1:] for line in (CONF / "experiment" / f"{path}.yaml").read_text().splitlines() if line.startswith("#")
    ]
    text = textwrap.dedent("\n".join(line.removeprefix(" ") for line in lines))
    numbers = re.search(r"^expected:\n((?:[ -].*\n?)*)", text, flags=re.M)
    said = {
        key: " ".join(found[1].split())
        for key in ("Differs", "Cost")
        if (found := re.search(rf"^{key}: (.*?)(?=^[A-Z]\w+: |\Z)", text, flags=re.S | re.M))
    }
    return (yaml.safe_load(numbers[1]) or []) if numbers else [], said


def measured(number: dict[str, Any]) -> str:
    """`top-1 92.9 %` of a published number."""
    key = next(key for key in MEASURES if key in number)
    return f"{MEASURES[key]} {number[key]} %"


def recipes(name: str) -> str:
    """The published recipes of a method: what to expect, by which protocol, and what it costs."""
    parts = []
    for path in sorted(f"{file.parent.name}/{file.stem}" for file in (CONF / "experiment").glob(f"*/{name}.yaml")):
        numbers, said = expected(path)
        lines = ["| Expected | Protocol | Batch | Epochs | Source |", "|---|---|---|---|---|"]
        lines += [
            f"| {measured(n)} | {n['protocol']} | {n['batch']} | {n['epochs']} | {n['source']} |" for n in numbers
        ]
        notes = [f"*{key}.* {cell(text)}" for key, text in said.items()]
        parts += [f"**`experiment={path}`**, published, not repeated here:", "\n".join(lines), *notes]
    none = "There is no published recipe for this method here: start from `method=" + name + "` and your own data."
    return "\n\n".join(parts) or none


def seen(name: str) -> str:
    """What small runs on two CPU cores gave, beside random weights and raw pixels."""
    lines = ["| Data | Epochs | kNN | linear | random weights | raw pixels, kNN |", "|---|---|---|---|---|---|"]
    for folder, words in SEEN.items():
        file = ROOT / "benchmarks" / "results" / folder / f"{name}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text())
        base = found["baselines"]
        random, pixels = base["random_init"], base["raw_pixels"]

        def percent(number: float | None) -> str:
            return "" if number is None else f"{int(1000 * number + 0.5 + 1e-9) / 10:.1f} %"  # halves up

        epochs = found["epochs"] or "under one"
        lines.append(
            f"| {words} | {epochs} | {percent(found['knn_top1'])} | {percent(found['linear_top1'])} | "
            f"{percent(random['knn_top1'])} / {percent(random['linear_top1'])} | {percent(pixels['knn_top1'])} |"
        )
    note = "Minutes on two CPU cores, one run each, seed 0: [commands and caveats](../results.md)."
    return "\n".join(lines) + f"\n\n{note}" if len(lines) > 2 else "No run of it is on record here."


def settings(name: str) -> str:
    """The keys of the method, and of the losses that it begins with."""
    lines = rows(read("method", name), remarks("method", name), "method")
    text = (CONF / "method" / f"{name}.yaml").read_text()
    for place, loss in re.findall(r"^  - /method/loss@(method\.\w+): (\w+)$", text, flags=re.M):
        target = read("method/loss", loss)["_target_"].rsplit(".", 1)[-1]
        lines.append(f"| `{place}` | {target} | | `method/loss={loss}` |")
        lines += rows(read("method/loss", loss), remarks("method/loss", loss), place)
    return "\n".join([*HEAD, *lines])


def code(name: str) -> str:
    file, source = step(str(read("method", name)["_target_"]))
    return f'```python title="{file}"\n{source}\n```'


def filled(name: str, markdown: str) -> str:
    """A method's page with its markers replaced."""
    for marker, text in (("step", code), ("recipes", recipes), ("seen", seen), ("settings", settings)):
        assert f"<!-- {marker} -->" in markdown, f"docs/methods/{name}.md has no <!-- {marker} -->"
        markdown = markdown.replace(f"<!-- {marker} -->", text(name))
    return markdown


def overview() -> str:
    """All methods by family, a line each."""
    parts = []
    for family, names in by_family().items():
        parts.append(f"## {FAMILIES[family]}\n")
        parts.append("| `method=` | | Idea | Paper |\n|---|---|---|---|")
        for name in names:
            told = front(name)
            parts.append(f"| [`{name}`]({name}.md) | {told['title']} | {told['about']} | [arXiv]({paper(name)}) |")
        parts.append("")
    return "\n".join(parts)
