"""What a model is asked for each class by name: free text, or one of the names that it knows."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.schema import CLASS_PROMPTS
from auvtool.tables import read_table


def read_class_prompts(path: Path) -> dict[str, str]:
    """A table of prompts by class name (CLASS_PROMPTS); an empty prompt leaves the class out.

    Raises:
        InputError: it cannot be read, or names a class twice.
    """
    rows = read_table(path, CLASS_PROMPTS)
    prompts = {str(row["class_name"]): str(row["prompt"] or "").strip() for row in rows}
    if len(prompts) < len(rows):
        names = [str(row["class_name"]) for row in rows]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(path, expected="each class once", found=f"{twice} twice", cure="remove one of its rows")
    return prompts


def prompts_of_classes(
    classes: Sequence[SemanticClass],
    given: Mapping[str, str],
    known: Sequence[str] | None,
    aliases: Sequence[tuple[str, str]] = (),
) -> tuple[tuple[str, str], ...]:
    """(class name, prompt) of every class that is to be decoded, in the order of `classes`.

    A class that `given` does not name is asked for by its own name.

    Args:
        classes: of the data set.
        given: see `read_class_prompts`.
        known: what the model can be asked, compared without case, blanks, dashes and underscores; None: any text.
        aliases: pairs of another name and one of `known`.

    Raises:
        UsageError: `given` names a class that is not there, no class is left, or the model does not know a prompt.
    """
    names = [one.name for one in classes]
    strange = [name for name in given if name not in names]
    if strange:
        raise UsageError(
            f"--prompts: expected classes of {', '.join(names)}, got {', '.join(strange)}; correct the table"
        )
    wanted = {name: given.get(name, re.sub(r"[_\s]+", " ", name).strip()) for name in names}
    wanted = {name: prompt for name, prompt in wanted.items() if prompt}
    if not wanted:
        raise UsageError("--prompts: expected a prompt for at least one class, got none; fill one in")
    if known is None:
        return tuple(wanted.items())
    by_key = {_key(alias): name for alias, name in aliases} | {_key(name): name for name in known}
    unknown = [name for name, prompt in wanted.items() if _key(prompt) not in by_key]
    if unknown:
        raise UsageError(
            f"--prompts: expected for each class one of {', '.join(known)}, or nothing to leave it out, got none for "
            f"{', '.join(unknown)}; give a table with the columns class_name and prompt"
        )
    return tuple((name, by_key[_key(prompt)]) for name, prompt in wanted.items())


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
