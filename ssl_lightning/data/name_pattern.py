"""Labels and groups from the names of files: `{label}_{group}_{take}` reads 7_theo_12.wav as 7, theo, 12."""

import re
from collections.abc import Sequence

from ssl_lightning.core.errors import UserError, did_you_mean
from ssl_lightning.data.broken import counted, named, say

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
LONGEST = 200  # letters of a pattern


def is_pattern(text: object) -> bool:
    """Whether a text has a field in braces."""
    return isinstance(text, str) and FIELD.search(text) is not None


def fields(pattern: str) -> list[str]:
    """The names of a pattern's fields."""
    return list(dict.fromkeys(FIELD.findall(pattern)))


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern for paths without their suffix: as many folders of the path's end as it has.

    A field stands for one letter or more, as few as fit, and none of "/"; a field that stands twice is the same text;
    `*` is any text without "/". Raises UserError where a brace is no field, or two fields touch.
    """
    plain = FIELD.sub("", pattern)
    if set("{}") & set(plain) or len(pattern) > LONGEST:
        raise UserError(
            f"{pattern!r} is not a pattern of file names; write fields such as {{label}}_{{group}}_{{take}}"
        )
    if re.search(r"[}*][{*]", pattern):
        raise UserError(
            f"{pattern!r}: two fields touch, so it is unclear where the first ends; put a letter between them"
        )
    out, seen, last = "", set[str](), 0
    for match in FIELD.finditer(pattern):
        name = match.group(1)
        out += re.escape(pattern[last : match.start()]).replace(r"\*", "[^/]*?")
        out += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
        seen.add(name)
        last = match.end()
    return re.compile(f"(?:.*/)?{out}" + re.escape(pattern[last:]).replace(r"\*", "[^/]*?"))


def read(pattern: str, files: Sequence[str], key: str = "data.labels") -> list[dict[str, str]]:
    """What the fields are in each of `files`, paths with "/" between the parts; {} where one does not fit.

    Raises:
        UserError: a pattern that is none, or that no file fits.
    """
    form = compiled(pattern)
    matches = [form.fullmatch(_stem(name)) for name in files]
    odd = [name for name, match in zip(files, matches, strict=True) if match is None]
    if len(odd) == len(files):
        first = f" ({files[0]} first)" if files else ""
        raise UserError(f"{key}={pattern}: no file name has this form{first}; correct the pattern")
    if odd:
        say(f"{key}={pattern}: {counted(len(odd), 'file name')} without this form: {named(odd)}.")
    return [{} if match is None else match.groupdict() for match in matches]


def field_of(pattern: str, name: str, key: str) -> str:
    """`name`, which must be a field of the pattern; UserError otherwise."""
    if name not in fields(pattern):
        raise UserError(f"{key}={name} is not a field of {pattern}.{did_you_mean(name, fields(pattern))}")
    return name


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
