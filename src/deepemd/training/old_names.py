"""Old names of settings, which command lines, YAML files and the config.yaml of earlier runs may still use."""

from typing import Any

from deepemd.errors import InputError

__all__ = ["NEW_NAMES", "rename_keys", "rename_option"]

NEW_NAMES = {"parts": "grad_accum_steps", "fold": "space_to_depth"}
"""Old name -> current name of a setting of a recipe, at any depth."""


def rename_keys(tree: Any) -> Any:
    """Return nested settings with old names replaced.

    >>> rename_keys({"recipe": {"parts": 2, "model": {"fold": 2}}})
    {'recipe': {'grad_accum_steps': 2, 'model': {'space_to_depth': 2}}}

    Raises:
        InputError: a setting is given under both of its names.
    """
    if not isinstance(tree, dict):
        return tree
    for old, new in NEW_NAMES.items():
        if old in tree and new in tree:
            raise InputError(f"{old} is the old name of {new}, and both are given: leave {old} out")
    return {NEW_NAMES.get(key, key): rename_keys(value) for key, value in tree.items()}


def rename_option(word: str) -> str:
    """Return a word of a command line with an old name replaced.

    >>> rename_option("--recipe.parts=2"), rename_option("--recipe.lr"), rename_option("--parts")
    ('--recipe.grad_accum_steps=2', '--recipe.lr', '--parts')
    """
    option, equals, value = word.partition("=")
    if not option.startswith("--recipe."):
        return word
    return ".".join(NEW_NAMES.get(part, part) for part in option.split(".")) + equals + value
