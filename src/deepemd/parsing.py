"""Parse the options of a command: names, types, defaults and help texts come from a function."""

import ast
import inspect
import sys
from collections.abc import Callable
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

__all__ = ["parse"]

_MAX_REFERENCES = 20  # in a YAML file
_SHIELD = 0x10FE80 - 0xDC80


def parse(name: str, function: Callable[..., None], words: list[str]) -> dict[str, object]:
    """Parse the options of a function from the command line and from YAML files (--config).

    Names, types, defaults and help texts come from the function's signature and docstring.
    """
    from argparse import Action

    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    from deepemd.errors import InputError

    if sys.flags.optimize > 1:
        _restore_docstrings()

    class Help(DefaultHelpFormatter):
        def _expand_help(self, action: Action) -> str:
            """Write types as they are written in Python."""
            return super()._expand_help(action).replace("<class 'Path'>", "Path")

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            """Wrap each paragraph of a docstring separately."""
            return "\n\n".join(super(Help, self)._fill_text(part, width, indent) for part in text.split("\n\n"))

    text = (function.__doc__ or "").split("\n\n    Args:")[0]
    parser = ArgumentParser(prog=f"deepemd {name}", description=text, exit_on_error=False, formatter_class=Help)
    if "recipe" in signature(function).parameters:
        parser.parser_mode = _recipe_loader()
    parser.add_argument("--config", action="config", help="YAML file of options; the command line overrides it")
    lists = _lists(function)
    parser.add_function_arguments(function, as_group=False, as_positional=True, sub_configs=True, skip=set(lists))
    for argument, (kind, description) in lists.items():
        if signature(function).parameters[argument].kind is Parameter.KEYWORD_ONLY:
            parser.add_argument(f"--{argument}", nargs="+", type=kind, help=description, required=True)
        else:
            parser.add_argument(argument, nargs="+", type=kind, help=description)
    words = _switches(function, words)
    _refuse_empty_paths(function, words)
    try:
        options = parser.instantiate(parser.parse_args([_shielded(word) for word in words]))
    except (ArgumentError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        message = " ".join(str(error).split())
        files = [after for word, after in pairwise(words) if word == "--config"]
        in_file = bool(files) and ("config" in message or not isinstance(error, ArgumentError))
        where = f"{', '.join(files)}: " if in_file else ""
        message = _unshielded(message)
        raise InputError(f"{where}{message}; 'deepemd {name} --help' explains every option") from error
    return {key: _unshielded(value) for key, value in vars(options).items() if key != "config"}


def _recipe_loader() -> str:
    """Register a loader of YAML that accepts the old names of a recipe's settings; return its name."""
    from jsonargparse import get_loader, set_loader
    from yaml import AliasEvent, SafeLoader, YAMLError, parse  # type: ignore[import-untyped]

    from deepemd.training.old_names import rename_keys

    load = get_loader("yaml")

    def checked(text: str) -> Any:
        references = (
            sum(isinstance(event, AliasEvent) for event in parse(text, Loader=SafeLoader)) if "*" in text else 0
        )
        if references > _MAX_REFERENCES:  # they could unfold to gigabytes
            raise YAMLError(f"{references} references, more than {_MAX_REFERENCES}")
        return rename_keys(load(text))

    set_loader("recipe", checked, exceptions=(YAMLError,))
    return "recipe"


def _lists(function: Callable[..., None]) -> dict[str, tuple[type, str]]:
    """Return the parameters that are required lists, with the type of their items and their help text.

    A list takes all remaining words or, if it is keyword-only, those after its option.
    """
    from docstring_parser import parse

    descriptions = {p.arg_name: p.description or "" for p in parse(function.__doc__ or "").params}
    return {
        name: (get_args(p.annotation)[0], descriptions.get(name, ""))
        for name, p in signature(function).parameters.items()
        if p.default is p.empty and get_origin(p.annotation) is list
    }


def _switches(function: Callable[..., None], words: list[str]) -> list[str]:
    """Rewrite ``--n-way`` to ``--n_way``, and switches such as ``--resume`` to ``--resume=true``."""
    from deepemd.training.old_names import rename_option

    words = [rename_option(_underscored(word)) for word in words]
    switches = {f"--{name}" for name, p in signature(function).parameters.items() if isinstance(p.default, bool)}
    return [
        f"{word}=true" if word in switches and after.startswith("-") else word
        for word, after in pairwise([*words, "--"])
    ]


def _refuse_empty_paths(function: Callable[..., None], words: list[str]) -> None:
    """Raise an error if a path is empty, as where a shell variable is not set: it would be the current folder."""
    from deepemd.errors import InputError

    paths = {f"--{name}" for name, p in signature(function).parameters.items() if "Path" in str(p.annotation)}
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if (equals and not value and option in paths) or (not word and (before in paths or before[:2] != "--")):
            where = f"{option or before}: " if (option or before)[:2] == "--" else ""
            raise InputError(f"{where}the path is empty (a variable that is not set?): leave it out, or name a path")


def _underscored(word: str) -> str:
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


def _shielded(word: str) -> str:
    """Write the bytes of a file name that are no text as private characters, because YAML has no others for them."""
    return "".join(chr(ord(c) + _SHIELD) if 0xDC80 <= ord(c) <= 0xDCFF else c for c in word)


def _unshielded(value: Any) -> Any:
    """Undo :func:`_shielded` in text, paths and lists of them."""
    if isinstance(value, list):
        return [_unshielded(item) for item in value]
    if isinstance(value, str | Path):
        text = str(value)
        low, high = _SHIELD + 0xDC80, _SHIELD + 0xDCFF
        plain = "".join(chr(ord(c) - _SHIELD) if low <= ord(c) <= high else c for c in text)
        return value if plain == text else type(value)(plain)
    return value


def _restore_docstrings() -> None:
    """Read the docstrings of all modules that are loaded from their source; python -OO leaves them out."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "deepemd":
            continue
        try:
            tree = ast.parse(inspect.getsource(module))
        except (OSError, TypeError, SyntaxError):  # installed without its source: there is no help then
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found = vars(module).get(node.name)
                if found is not None and getattr(found, "__module__", None) == name:  # dataclasses make up a text
                    found.__doc__ = ast.get_docstring(node, clean=False)
