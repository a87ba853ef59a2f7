"""Measure in new processes: the peak of memory, and the time to the first result.

The parent runs ``python -m deepemd.bench.subprocesses JSON`` and reads one line of JSON. Nothing of deepemd is imported
at the top, because the time to import it is one of the measurements.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from deepemd.bench.race import Settings

__all__ = ["gradient", "start"]

# The number of problems of each solver: QPTH needs half a second and 40 MB for one.
SOLVERS: dict[str, int | None] = {"emd": None, "pot": None, "qpth": 10}


def gradient(
    settings: "Settings", missing: dict[str, str], rows: list[dict[str, Any]], report: Callable[[str], None]
) -> None:
    """Measure time and memory of the value and its gradients, for an episode's problems. Modifies rows.

    The solvers take turns, each in a new process. The figures of a solver that gets fewer problems are scaled up.
    """
    from deepemd.bench.measure import ratios, summary

    solvers = {k: few for k, few in SOLVERS.items() if k == "emd" or (k in settings.peers and k not in missing)}
    done: dict[str, dict[int, dict[str, float]]] = {name: {} for name in solvers}
    failed = dict.fromkeys(solvers, 0)
    pairs = settings.pairs
    try:
        for r in range(settings.processes):
            for name, few in solvers.items():
                report(f"gradient: {name}, process {r + 1} of {settings.processes}")
                wanted = {"what": "gradient", "solver": name, "problems": min(few or pairs, pairs), "seed": r}
                try:
                    done[name][r] = _child(wanted | {"threads": settings.threads[0]})
                except ChildProcessError:
                    if name == "emd":
                        raise
                    failed[name] += 1  # its message is on standard error; the others continue
    finally:
        for name, runs in done.items():
            if not runs:
                continue
            measured = min(solvers[name] or pairs, pairs)
            scale = pairs / measured
            row: dict[str, Any] = {"solver": name, "problems": pairs, "measured_problems": measured}
            row["ms"] = summary([scale * run["ms"] for run in runs.values()])
            beyond = [run["mb"] for run in runs.values() if run["mb"] is not None]
            row["mb"] = summary([scale * mb for mb in beyond]) if beyond else None
            row["value_error"] = max(run["error"] for run in runs.values())
            row["times_ours"] = ratios(
                [scale * run["ms"] for run in runs.values()], [done["emd"][r]["ms"] for r in runs]
            )
            row["failed_processes"] = failed[name]
            rows.append(row)


def start(settings: "Settings", result: dict[str, Any], report: Callable[[str], None]) -> None:
    """Measure the seconds to the first result of a new process, after ``import torch, numba``. Modifies result."""
    from deepemd.bench.measure import summary

    report("start: filling the cache of compiled code")
    _child({"what": "start"})
    runs: list[dict[str, float]] = []
    try:
        for r in range(settings.processes):
            report(f"start: process {r + 1} of {settings.processes}")
            runs.append(_child({"what": "start"}))
    finally:
        if runs:
            result.update({name: summary([run[name] for run in runs]) for name in runs[0]})


def _child(wanted: dict[str, Any]) -> Any:
    """Run a measurement in a new process and return its result."""
    command = [sys.executable, "-m", "deepemd.bench.subprocesses", json.dumps(wanted)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    if done.returncode:
        raise ChildProcessError(
            f"the measuring process for {wanted} ended with {done.returncode}; its message is above"
        )
    return json.loads(done.stdout)


# --- in the child -----------------------------------------------------------------------------------------------------


def _start() -> dict[str, float]:
    """Measure the import and the first call of emd."""
    import numba  # noqa: F401
    import torch

    began = time.perf_counter()
    from deepemd.transport import emd

    imported = time.perf_counter()
    emd(torch.rand(25, 25), torch.ones(25), torch.ones(25))
    solved = time.perf_counter()
    return {"import_s": imported - began, "first_call_s": solved - imported, "total_s": solved - began}


def _gradient(solver: str, problems: int, seed: int, threads: int) -> dict[str, float | None]:
    """Measure milliseconds, the rise of the peak of memory beyond the gradients themselves in MB, and the error."""
    import torch

    from deepemd.bench.measure import peak_rise, seconds
    from deepemd.bench.problems import embedding_problems
    from deepemd.transport import emd

    value = _values(solver)
    generator = torch.Generator().manual_seed(seed)
    torch.set_num_threads(threads)

    def draw(count: int) -> list["torch.Tensor"]:
        return [t.requires_grad_() for t in embedding_problems(generator, count, 25)]

    def run(inputs: Sequence["torch.Tensor"]) -> None:
        value(*inputs).sum().backward()

    run(draw(2))  # compiles, imports
    inputs = draw(problems)
    times: list[float] = []
    rise = peak_rise(lambda: times.append(seconds(lambda: run(inputs))))
    gradients = sum(t.grad.nbytes for t in inputs if t.grad is not None) / 2**20
    with torch.no_grad():
        few = [t[:3] for t in inputs]
        error = float((value(*few) - emd(*few).value).abs().max())
    for _ in range(20 if solver == "emd" else 0):  # one time is enough for the others, which take longer
        inputs = draw(problems)
        times.append(seconds(lambda: run(inputs)))  # noqa: B023
    beyond = None if rise is None else max(0.0, rise - gradients)
    return {"ms": 1e3 * statistics.median(times), "mb": beyond, "error": error}


def _values(solver: str) -> Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]:
    """Return a solver as a function of cost, a and b that returns differentiable values."""
    import torch

    if solver == "pot":
        import ot

        return lambda cost, a, b: torch.stack(
            [ot.emd2(*problem, numItermax=1_000_000) for problem in zip(a, b, cost, strict=True)]
        )
    if solver == "qpth":
        from deepemd.transport.solvers import qpth

        return lambda cost, a, b: qpth(cost, a, b, form="QP").value
    from deepemd.transport import emd

    return lambda cost, a, b: emd(cost, a, b).value


def main() -> None:
    """Run the measurement that the first command-line argument names, and print the result as JSON."""
    wanted = json.loads(sys.argv[1])
    found = _start() if wanted.pop("what") == "start" else _gradient(**wanted)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
