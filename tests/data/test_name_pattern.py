"""Labels and groups from the names of files."""

import pytest

from ssl_lightning.core.errors import UserError
from ssl_lightning.data import name_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{label}_{group}_{take}", "recordings/7_theo_12.wav", {"label": "7", "group": "theo", "take": "12"}),
        ("{label}_{rest}", "a_b_c.wav", {"label": "a", "rest": "b_c"}),
        ("{group}/{label}-*", "x/theo/7-part.2.flac", {"group": "theo", "label": "7"}),
        ("{label}.{n}", "dog.3.wav", {"label": "dog", "n": "3"}),
        ("{label}_{label}", "a_a.wav", {"label": "a"}),
        ("{label}_{label}", "a_b.wav", {}),
        ("{group}/{label}", "7.wav", {}),
    ],
)
def test_what_a_pattern_reads(pattern: str, path: str, found: dict[str, str]) -> None:
    matching = path if found else "d/e_e.wav" if "_" in pattern else "d/e.wav"
    assert name_pattern.read(pattern, [path, matching])[0] == found


def test_names_that_do_not_fit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert name_pattern.read("{label}_{n}", ["a_1.wav", "readme.wav"]) == [{"label": "a", "n": "1"}, {}]
    assert "1 file name without this form: readme.wav" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no file name has this form \(b.wav first\)"):
        name_pattern.read("{label}_{n}", ["b.wav"])


@pytest.mark.parametrize("pattern", ["{label}{group}", "{label}*", "{la bel}_x", "{}", "{label", "{a}" + "_" * 300])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UserError):
        name_pattern.compiled(pattern)


def test_is_pattern() -> None:
    assert name_pattern.is_pattern("{label}_x")
    assert not any(map(name_pattern.is_pattern, ("labels.csv", None, True)))
    with pytest.raises(UserError, match="Did you mean 'take'"):
        name_pattern.field_of("{label}_{take}", "taek", "data.group")
