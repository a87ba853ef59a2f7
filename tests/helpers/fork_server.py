"""Processes for tests that kill or limit them: forked from one that has imported everything already.

A start by fork takes milliseconds; importing torch, numba and Lightning takes several seconds each time. The server
computes nothing before it forks, so a child starts like a new process.
"""

import json
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

IMPORTS = "pytest torch torch.utils.tensorboard deepemd.cli deepemd.training.metatrain deepemd.training.pretrain"


class Child:
    """A forked process."""

    def __init__(self, server: "ForkServer", pid: int, readers: list[Thread], texts: list[str]) -> None:
        self._server = server
        self._readers = readers
        self._texts = texts  # standard output, standard error
        self.pid = pid
        self.returncode: int | None = None  # -N where signal N killed it

    def poll(self, timeout: float = 0.0) -> int | None:
        """Return the exit code, None while the process runs."""
        if self.returncode is None and select.select([self._server.process.stdout], [], [], timeout)[0]:
            self.returncode = int(self._server.read())
        return self.returncode

    def wait(self, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Return exit code and output, once the process has ended."""
        if self.poll(timeout) is None:
            os.kill(self.pid, 9)
            self.poll(10)
            raise TimeoutError(f"no end within {timeout} s: {self._texts[1]}")
        for reader in self._readers:
            reader.join()
        return subprocess.CompletedProcess([], self.returncode or 0, *self._texts)


class ForkServer:
    """Starts one process at a time.

    Args:
        folder: for the pipes of the processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        command = [sys.executable, str(Path(__file__)), *IMPORTS.split()]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )

    def read(self) -> str:
        """Return the next answer of the server."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line, "the fork server died"
        return line

    def start(self, code: str, *arguments: object) -> Child:
        """Start Python code as a script of its own, like ``python -c CODE ARGUMENTS`` in the present environment."""
        self.count += 1
        pipes = [self.folder / f"{self.count}.{name}" for name in ("out", "err")]
        texts = ["", ""]

        def read(k: int) -> None:
            texts[k] = pipes[k].read_text()

        readers = [Thread(target=read, args=(k,), daemon=True) for k in range(2)]
        for pipe, reader in zip(pipes, readers, strict=True):
            os.mkfifo(pipe)
            reader.start()
        request: dict[str, Any] = {"code": code, "arguments": [str(argument) for argument in arguments]}
        request |= {"pipes": [str(pipe) for pipe in pipes], "environment": dict(os.environ), "folder": os.getcwd()}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        return Child(self, int(self.read()), readers, texts)

    def run(self, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Start Python code, and return exit code and output once it has ended."""
        return self.start(code, *arguments).wait()

    def close(self) -> None:
        """End the server."""
        self.process.communicate(timeout=30)


def run_script(code: str) -> NoReturn:
    """Run Python code and exit like the interpreter, which would take seconds to free everything that is imported."""
    status: Any = 0
    try:
        exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    """Fork for every request; answer with the process's number, then with its exit code."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, (path, flags) in enumerate(
                [(os.devnull, os.O_RDONLY), *((path, os.O_WRONLY) for path in request["pipes"])]
            ):
                os.dup2(os.open(path, flags), number)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.argv = ["-c", *request["arguments"]]
            run_script(request["code"])
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    from importlib import import_module

    for name in sys.argv[1:]:
        import_module(name)
    serve()
    os._exit(0)
