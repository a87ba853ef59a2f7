"""The command line: a table of commands. Each is a typed function, imported only when it is called."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import NamedTuple

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
    "predict": Command("deepemd.commands.predict:predict", "label photos, given a few examples of each class"),
    "check": Command(
        "deepemd.commands.check:check", "estimate the accuracy on your labelled photos, and find wrong labels"
    ),
    "learn": Command(
        "deepemd.commands.learn:learn", "teach labels that you corrected to a classifier that predict has saved"
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
    "serve": Command("deepemd.commands.serve:serve", "answer other programs over HTTP: they send photos, and get JSON"),
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

    Raises:
        SystemExit: after --help and --print_config, with code 0.

    Returns:
        The exit code: 0 for success, 2 for input that the user can correct, 74 if standard output could not be written,
        75 if another process of the command died, 130 after Ctrl-C, 143 after SIGTERM. A closed output, such as that to
        `head`, is no error.
    """
    from deepemd.streams import guarded_streams, in_utf8

    if argv is None:
        in_utf8()
    words = list(sys.argv[1:] if argv is None else argv)
    stopped = None
    with guarded_streams() as lost:
        try:
            code = _main(words)
        except SystemExit as stop:  # after --help and --print_config
            code, stopped = 0, stop
        sys.stdout.flush()
        if lost.error is not None:
            print(f"deepemd: standard output could not be written ({lost.error.strerror})", file=sys.stderr)
            code = code or 74
    if stopped is not None and not code:
        raise stopped
    return code


def _main(words: list[str]) -> int:
    """Run one command; return the exit code."""
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
    from deepemd.files import check_current_folder
    from deepemd.parsing import parse
    from deepemd.processes import process_group, torchrun_info

    command, here = COMMANDS[name], torchrun_info()
    module, _, attribute = command.function.partition(":")
    try:
        check_current_folder()
        function: Callable[..., None] = getattr(import_module(module), attribute)
        if here.world_size > 1 and not command.shared:
            raise InputError(
                f"{name} runs in one process, but torchrun started {here.world_size}: run it without torchrun"
            )
        options = parse(name, function, words)
        with process_group() if command.shared else nullcontext():
            function(**options)
    except InputError as error:
        return _fail(f"process {here.rank} of {here.world_size}: {error}" if here.rank else str(error))
    except OSError as error:  # of a file that no message of ours names
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}: check the path and the disk")
    except Interrupted as interruption:
        if here.rank == 0:  # all processes stopped after the same step
            print(f"deepemd: {interruption}", file=sys.stderr)
        return interruption.exit_code
    except ProcessLost as loss:
        print(f"deepemd: {loss}", file=sys.stderr)
        return loss.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
