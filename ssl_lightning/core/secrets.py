"""Keeps passwords, keys and tokens out of whatever is written or printed; the run itself works with the real values.

Known by the name they stand under (`api_key`, `hfToken`), by their shape (`https://user:password@host`), or by where
they came from: an environment variable with such a name, through `${oc.env:...}` or through the shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

MASK = "***"
PLACES_NOT_SECRETS = ("PWD", "OLDPWD")  # a shell's variables: where the user stands
FEW = 4  # characters; a value of fewer is looked for in no other text, wherever it came from
SHORTEST = 8  # characters of a value that is looked for inside of other text; a shorter one would be found by chance

# Whole words of a name, as patterns.
_SURE = r"\w*(passwords?|passwd|passphrase|secrets?|apikeys?|secretkey|accesskey)|pwd|credentials?|bearer|jwt|cookie"
_SURE += "|(auth|access|api)token|authkey"
_LAST = "auth|authorization|token|pass|dsn|webhook"  # secret where the name ends in one
_BEFORE_KEY = "api|access|secret|private|auth|account|signing|encryption|service|ssh"
_BEFORE_KEY += "|wandb|hf|openai|anthropic|github|aws|azure|google|comet|neptune|clearml"
_ABOUT = "path|file|dir|folder|length|len|size|dim|min|max|count|timeout|policy"  # a name that ends so is none
_AFTER = "value|string|text|hash|id|base64|b64|plain"  # says nothing
# Words before "token" by which models and text mean one: no secret.
_MODELS = "cls|class|mask|masked|num|n|reg|register|dist|distill|pad|padding|bos|eos|sep|unk|pos|patch|start|end"
_MODELS += "|special|per|image|text|prefix|query|global|pool|first|last|avg|mean|extra|visual|learnable|latent|input"
_MODELS += "|output|use|no|with|add|drop|time|audio|video|frame|point|column|feature"

_QUERY = {"sig", "signature", "key", "auth", "pass"}  # secret as parameters of an address
# Lengths have limits, so that no text takes long.
_ADDRESS = re.compile(
    r"(?<![\w+.-])([A-Za-z][\w+.-]{0,30}://)"
    r"(?:[^\s/?#:@]{1,256}:(?!\d+(?:[/?#]|\s|$))\S{0,1024}|[^\s/?#]{0,1024})@"
)
_PARAMETER = re.compile(r"([?&#;])([\w.-]{1,100})=([^&#\s'\"]+)")
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{10,}"
    r"|sk-(?=[\w-]{0,99}\d)(?=[\w-]{0,99}[A-Z])[\w-]{24,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|wandb_v1_\w{20,}"
    r"|eyJ[\w-]{8,2048}\.[\w-]{8,4096}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|(?<=\bBearer )\S{16,}|(?<=\bAuthorization: Basic )\S+",
    re.DOTALL,
)
_known: set[str] = set()  # values that stood under secret names in this process


def is_secret(name: str) -> bool:
    """Is this the name of a secret? By the words of a snake, kebab or camel name; numbers at its end aside.

    >>> [name for name in ("hf_token", "accessToken", "API-Key2", "cls_token", "num_tokens") if is_secret(name)]
    ['hf_token', 'accessToken', 'API-Key2']
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z]+", " ", name.rpartition(".")[2])
    words = spaced.lower().split()
    while len(words) > 1 and re.fullmatch(_AFTER, words[-1]):
        words.pop()
    if not words or re.fullmatch(_ABOUT, words[-1]):
        return False
    if any(re.fullmatch(_SURE, word) for word in words):
        return True
    if any(re.fullmatch(_BEFORE_KEY, one) and two in ("key", "keys") for one, two in pairwise(words)):
        return True
    return re.fullmatch(_LAST, words[-1]) is not None and not re.fullmatch(_MODELS, (["", *words])[-2])


def mask(node: Any) -> Any:
    """A copy of plain values in which no secret stands. What is no text under a doubtful name ("token") stays."""
    _remember(node, "")  # first: what stands under a secret name may be part of another value as well
    return _masked(node, "")


def _masked(node: Any, name: str) -> Any:
    if isinstance(node, Mapping):
        return {key: _masked(value, _name_of(key, name)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_masked(item, name) for item in node]
    if _is_hidden(node, name):
        return MASK
    return _without(node, {*_known, *_of_environment(sure=True)}) if isinstance(node, str) else node


def _name_of(key: Any, above: str) -> str:
    """What a value is called: below a secret name everything is one."""
    return above if is_secret(above) else str(key)


def _is_hidden(value: Any, name: str) -> bool:
    if not is_secret(name) or value in (None, "") or isinstance(value, bool):
        return False
    if isinstance(value, str):
        return re.fullmatch(r"\$\{.*\}", value) is None  # a reference tells nothing
    return not re.search(r"token|auth$|pass$", name, re.IGNORECASE)  # numbers under "token" are a model's


def _remember(node: Any, name: str) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            _remember(value, _name_of(key, name))
    elif isinstance(node, list | tuple):
        for item in node:
            _remember(item, name)
    elif _is_hidden(node, name) and len(str(node)) >= SHORTEST:
        _known.add(str(node))


def remember_environment(names: Iterable[str]) -> None:
    """From here on the values of these variables count as known secrets, all but those of a few letters.

    Such a value is masked where it stands as a key's own; other text is full of the same letters.
    """
    found = [os.environ.get(name, "") for name in names if is_secret(name)]
    _known.update(value for value in found if len(value) >= FEW)


def hide(text: str) -> str:
    """Text without what looks like a secret, or is one that this process or its environment holds."""
    return _without(text, {*_known, *_of_environment()})


def _without(text: str, values: set[str]) -> str:
    text = _SHAPES.sub(MASK, _ADDRESS.sub(rf"\g<1>{MASK}@", text))
    text = _PARAMETER.sub(_parameter, text)
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def _parameter(match: re.Match[str]) -> str:
    start, name, value = match.groups()
    secret = is_secret(name) or re.split(r"[-_]", name.lower())[-1] in _QUERY
    return f"{start}{name}={MASK if secret else value}"


def _of_environment(sure: bool = False) -> Iterable[str]:
    """Values of environment variables with a secret's name; `sure`: only such as no other text holds by chance."""
    shortest = 12 if sure else SHORTEST
    named = [(key, value) for key, value in os.environ.items() if key not in PLACES_NOT_SECRETS and is_secret(key)]
    found = [value for _, value in named if len(value) >= shortest]
    return [value for value in found if not sure or len(value) >= 20 or re.search(r"\d", value)]


def mask_word(word: str) -> str:
    """A word of the command line, `key=value`, as it may be printed."""
    key, equals, value = word.partition("=")
    if equals and re.fullmatch(r"[+~]*[\w./@-]+", key) and is_secret(key) and not value.startswith("${"):
        _remember(value.strip("'\""), key)
        return f"{key}={MASK}"
    return hide(word)


def mask_words(words: Iterable[str]) -> list[str]:
    """A command line as it may be printed."""
    return [mask_word(word) for word in words]
