"""The table in docs/security.md has one row for each attack, and says what the test says."""

from pathlib import Path
from typing import Any

from tests.security import test_config_sources, test_files, test_folders, test_growth, test_secrets
from tests.security.attacks_cards import CARDS, MODELS, RUNS
from tests.security.attacks_names import EXPERIMENTS, NAMES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
MODULES = (test_config_sources, test_secrets, test_folders, test_files, test_growth)


def target(payload: Any) -> str:
    """What a payload names, for the table."""
    node = payload.get("backbone", payload) if isinstance(payload, dict) else {}
    node = node["task"]["node"] if isinstance(node, dict) and "task" in node else node
    name = node.get("_target_") if isinstance(node, dict) else None
    return f" (`{name}`)" if isinstance(name, str) and name.isascii() and name.isprintable() else ""


def rows() -> list[str]:
    """The table as it should stand in the page."""
    attacks = [attack for module in MODULES for attack in module.ATTACKS]
    found = [(attack.name, attack.tried, attack.refused) for attack in attacks]
    files = (*NAMES, *EXPERIMENTS, *CARDS, *RUNS, *MODELS)
    found += [(a.name + target(a.payload), a.tries, a.refused.strip()) for a in files]
    return [f"| {' | '.join(part.replace('|', '/') for part in row)} |" for row in found]


def test_each_attack_has_its_row() -> None:
    found = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert found == rows()
    assert len(set(found)) == len(found) > 250
