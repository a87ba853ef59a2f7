"""The command line: a table of commands. Each is a typed function, imported only when it is called."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from inspect import Parameter, signature
from itertools import pairwise
from typing import NamedTuple, get_args, get_origin

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """The function of a command, and its one-line summary."""

    function: str  # "module:function"
    summary: str
    shared: bool = False  # whether processes that torchrun started can share the work


COMMANDS = {
    "demo": Command(
        "deepemd.commands.train:demo", "train, evaluate and explain a model on built-in letters, in minutes"
    ),
    "predict": Command("deepemd.commands.photos:predict", "label photos, given a few examples of each class"),
    "check": Command(
        "deepemd.commands.photos:check", "estimate the accuracy on your labelled photos, and find wrong labels"
    ),
    "data list": Command("deepemd.commands.data:data_list", "list the known data sets, and those that are prepared"),
    "data prepare": Command("deepemd.commands.data:data_prepare", "check the images of a data set and store them"),
    "data verify": Command(
        "deepemd.commands.data:data_verify", "check that a prepared data set is complete and unchanged"
    ),
    "pretrain": Command(
        "deepemd.commands.train:pretrain", "train an encoder as a classifier of the base classes", shared=True
    ),
    "metatrain": Command(
        "deepemd.commands.train:metatrain",
        "train the encoder further on episodes, with gradients through the transport",
        shared=True,
    ),
    "evaluate": Command(
        "deepemd.commands.evaluate:evaluate",
        "measure the accuracy on episodes of new classes, next to baselines",
        shared=True,
    ),
    "convert": Command("deepemd.commands.convert:convert", "convert a checkpoint of the paper's authors to a model"),
    "retrieve index": Command(
        "deepemd.commands.retrieve:retrieve_index", "embed a folder of images once, for searching", shared=True
    ),
    "retrieve query": Command(
        "deepemd.commands.retrieve:retrieve_query", "find the images of an index that resemble yours, and show why"
    ),
    "retrieve evaluate": Command(
        "deepemd.commands.retrieve:retrieve_evaluate", "measure how well the images of an index find their own class"
    ),
    "app": Command(
        "deepemd.commands.app:app", "open a page in the browser: drop in photos of your classes, then one to classify"
    ),
    "warmup": Command(
        "deepemd.commands.warmup:warmup", "compile the transport solver ahead of time, for instance in a container"
    ),
    "bench emd": Command("deepemd.commands.bench:bench_emd", "compare the speed of transport solvers"),
}

_OVERVIEW = """usage: deepemd COMMAND [options]

Few-shot image classification: match the parts of images by the exact Earth Mover's Distance.

commands:
{commands}

  deepemd COMMAND --help          show the options of a command and their defaults
  deepemd COMMAND --print_config  print them as YAML, to edit and pass with --config FILE
  deepemd --version               print the version

To try it on any machine, without a download: deepemd demo
"""


def overview() -> str:
    """Return the text of ``deepemd --help``, without importing anything heavy."""
    return _OVERVIEW.format(commands="\n".join(f"  {name:<18} {c.summary}" for name, c in COMMANDS.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 for success, 2 for input that the user can correct, 75 if another process of the command died,
        130 after Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"deepemd {version('deepemd')}")
        return 0
    name, rest = _split(words)
    if name not in COMMANDS:
        return _fail(*_unknown(name))
    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        print("deepemd: interrupted", file=sys.stderr)
        return 130


def _split(words: list[str]) -> tuple[str, list[str]]:
    """Split the words into a command, of one or two words, and its options."""
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    length = 2 if words[0] in groups and len(words) > 1 and not words[1].startswith("-") else 1
    return " ".join(words[:length]), words[length:]


def _unknown(name: str) -> tuple[str, str]:
    within = [command for command in COMMANDS if command.startswith(f"{name.split()[0]} ")]
    if within:
        listed = "\n".join(f"  deepemd {command:<18} {COMMANDS[command].summary}" for command in within)
        return f"'{name}' is not a complete command; choose one of:", listed
    return f"there is no command '{name}'; choose one of:", ", ".join(COMMANDS)


def _fail(message: str, more: str = "") -> int:
    from deepemd.errors import printable

    text = f"deepemd: error: {message}" + (f"\n{more}" if more else "")
    print(printable(text, allow="\n\t"), file=sys.stderr)  # a quoted name could hold terminal control codes
    return 2


def _run(name: str, words: list[str]) -> int:
    from deepemd.errors import InputError, Interrupted, ProcessLost
    from deepemd.processes import process_group, torchrun_info

    command, here = COMMANDS[name], torchrun_info()
    module, _, attribute = command.function.partition(":")
    function: Callable[..., None] = getattr(import_module(module), attribute)
    try:
        if here.world_size > 1 and not command.shared:
            raise InputError(
                f"{name} runs in one process, but torchrun started {here.world_size}: run it without torchrun"
            )
        options = _parse(name, function, words)
        with process_group() if command.shared else nullcontext():
            function(**options)
    except InputError as error:
        return _fail(f"process {here.rank} of {here.world_size}: {error}" if here.rank else str(error))
    except Interrupted as interruption:
        if here.rank == 0:  # all processes stopped after the same step
            print(f"deepemd: {interruption}", file=sys.stderr)
        return interruption.exit_code
    except ProcessLost as loss:
        print(f"deepemd: {loss}", file=sys.stderr)
        return loss.exit_code
    return 0


def _parse(name: str, function: Callable[..., None], words: list[str]) -> dict[str, object]:
    """Parse the options of a function from the command line and from YAML files (--config).

    Names, types, defaults and help texts come from the function's signature and docstring.
    """
    from argparse import Action

    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    from deepemd.errors import InputError

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
    try:
        options = parser.instantiate(parser.parse_args(_switches(function, words)))
    except (ArgumentError, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        files = [after for word, after in pairwise(words) if word == "--config"]
        in_file = bool(files) and ("config" in message or isinstance(error, UnicodeDecodeError))
        where = f"{', '.join(files)}: " if in_file else ""
        raise InputError(f"{where}{message}; 'deepemd {name} --help' explains every option") from error
    return {key: value for key, value in vars(options).items() if key != "config"}


def _recipe_loader() -> str:
    """Register a loader of YAML that accepts the old names of a recipe's settings; return its name."""
    from jsonargparse import get_loader, set_loader
    from yaml import YAMLError  # type: ignore[import-untyped]

    from deepemd.training.old_names import rename_keys

    load = get_loader("yaml")
    set_loader("recipe", lambda text: rename_keys(load(text)), exceptions=(YAMLError,))
    return "recipe"


def _lists(function: Callable[..., None]) -> dict[str, tuple[type, str]]:
    """Return the parameters that are required lists, with the type of their items and their help text.

    A list takes all remaining words or, if it is keyword-only, those after its option.
    """
    from docstring_parser import parse

    descriptions = {p.arg_name: p.description or "" for p in parse(function.__doc__ or "").params}
    return {
        name: (get_args(p.annotation)[0], descriptions[name])
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


def _underscored(word: str) -> str:
    option, equals, value = word.partition("=")
    return option[:2] + option[2:].replace("-", "_") + equals + value if option.startswith("--") else word


if __name__ == "__main__":
    raise SystemExit(main())
