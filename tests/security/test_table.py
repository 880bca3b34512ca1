"""The table in docs/security.md has one row for each attack, and says what the test says."""

from pathlib import Path

from tests.security import test_config_sources, test_files, test_folders, test_secrets

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
MODULES = (test_config_sources, test_secrets, test_folders, test_files)


def test_each_attack_has_its_row() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    attacks = [attack for module in MODULES for attack in module.ATTACKS]
    wanted = [f"| {attack.name} | {attack.tried} | {attack.refused} |" for attack in attacks]
    assert rows == wanted
    assert len({attack.name for attack in attacks}) == len(attacks) > 60
