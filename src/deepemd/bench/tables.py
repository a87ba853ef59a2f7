"""Format a report as Markdown tables, which the command prints and docs/speed.md shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepemd.bench.race import ours

__all__ = ["markdown"]

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """Return all tables that the report has figures for."""
    parts = [_race(report, kind) for kind in report["settings"]["kinds"]]
    parts += [_errors(report), _calls(report), _gradient(report), _start(report), _machine(report)]
    return "\n\n".join(part for part in parts if part)


def _race(report: Report, kind: str) -> str:
    rows = [row for row in report["race"] if row["kind"] == kind]
    if not rows:
        return ""
    names = list({name: None for row in rows for key in ("us", "disagree", "failed") for name in row[key]})
    names = sorted(names, key=lambda name: list(report["peers"]).index(name) if name in report["peers"] else -1)
    first = ours(report["settings"]["threads"][0])
    peers = [name for name in names if name in report["peers"]]
    titles = [_title(report, name) for name in names]
    us = [[str(row["n"]), *(_median(row["us"].get(name)) or _why_not(row, name) for name in names)] for row in rows]
    text = f"**Microseconds a problem, {_KIND[kind]}**\n\n" + _table(["n", *titles], us)
    if peers:
        times = [
            [str(row["n"]), *(_times(row["times_ours"].get(name)) or _why_not(row, name) for name in peers)]
            for row in rows
        ]
        title = f"**Times as long as {first}, {_KIND[kind]}** (± interquartile range over the rounds)"
        text += f"\n\n{title}\n\n" + _table(["n", *(_title(report, name) for name in peers)], times)
    return text


_KIND = {"embedding": "costs between embeddings", "uniform": "uniform random costs"}


def _errors(report: Report) -> str:
    if not report["race"] or not report["peers"]:
        return ""
    names = list(report["peers"])
    rows = []
    for name in names:
        found = [row["error"][name] for row in report["race"] if name in row["error"]]
        wrong, failed = (
            sorted({row["n"] for row in report["race"] if name in row[key]}) for key in ("disagree", "failed")
        )
        text = f"{max(found):.0e}".replace("0e+00", "0 in float32") if found else ""
        text += f"; wrong, so not timed, at n = {', '.join(map(str, wrong))}" if wrong else ""
        text += f"; fails at n = {', '.join(map(str, failed))}" if failed else ""
        rows.append([_title(report, name), report["peers"][name]["how"], text.removeprefix("; ")])
    gap = max(row["duality_gap"] for row in report["race"])
    rows.append(["emd", "one call for the batch of float32 tensors", f"proven by its duals to {gap:.0e}"])
    return "**How each is called, and how far its values are from ours, relative to max |c|**\n\n" + _table(
        ["", "called as", "largest difference"], rows
    )


def _calls(report: Report) -> str:
    found = report["calls"]
    if not found:
        return ""
    counts = report["settings"]["threads"]
    n = found["n"]
    text = f"**emd on batches of {n} x {n}, microseconds a problem**\n\n" + _table(
        [
            "problems in a call",
            *(ours(count) for count in counts),
            *(f"gain of {count} threads" for count in counts[1:]),
        ],
        [
            [
                f"{int(batch):,}",
                *(_median(us[ours(count)]) for count in counts),
                *(_times(found["speedup_of_threads"][ours(count)][batch]) for count in counts[1:]),
            ]
            for batch, us in found["us_a_problem"].items()
        ],
    )
    rows = [
        [f"one problem of {n} x {n}, the whole call", f"{_spread(found['one_problem_us'])} us"],
        ["of it beyond the solve", f"{_spread(found['overhead_us'])} us"],
        ["one problem of 2 x 2, the whole call", f"{_spread(found['one_tiny_problem_us'])} us"],
        ["of it beyond the solve", f"{_spread(found['tiny_overhead_us'])} us"],
        [f"float64 input over float32 input, 375 problems of {n} x {n}", _times(found["float64_over_float32"])],
    ]
    heads = ["", "median ± interquartile range"]
    return f"{text}\n\n**Call and precision, {_threads(counts[0])}**\n\n{_table(heads, rows)}"


def _gradient(report: Report) -> str:
    if not report["gradient"]:
        return ""
    mine = next(row for row in report["gradient"] if row["solver"] == "emd")
    rows = []
    for row in report["gradient"]:
        few = row["measured_problems"]
        label = "emd" if row is mine else {"pot": "POT emd2 in a loop", "qpth": "QPTH"}[row["solver"]]
        label += f" ({few} problems, scaled up)" if few != row["problems"] else ""
        memory = "" if row["mb"] is None else f"{_number(row['mb']['median'])} MB"
        more = "1" if row is mine else _times(row["times_ours"])
        share = "" if not memory or not mine["mb"] else _number(row["mb"]["median"] / max(0.1, mine["mb"]["median"]))
        rows.append([label, _duration(row["ms"]["median"]), more, memory, share])
    heads = ["", "time", "times emd's", "peak memory beyond inputs and gradients", "times emd's"]
    return (
        f"**Value and gradients to cost, a and b, {mine['problems']} problems of 25 x 25, "
        f"{_threads(report['settings']['threads'][0])}**\n\n" + _table(heads, rows)
    )


def _start(report: Report) -> str:
    found = report["start"]
    if not found:
        return ""
    rows = [
        [label, f"{found[name]['median']:.2f} s"]
        for name, label in (
            ("import_s", "from deepemd import emd"),
            ("first_call_s", "the first call, compiled code from the cache"),
            ("total_s", "both"),
        )
    ]
    return "**A new process, beyond `import torch, numba`**\n\n" + _table(["", "median"], rows)


def _machine(report: Report) -> str:
    m = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    load = "" if m["load_before"] is None else f", load {m['load_before']:.1f} before"
    left_out = f" Not installed: {', '.join(report['left_out'])}." if report["left_out"] else ""
    return f"{m['processor']}, {m['cores']} cores, {m['system']}{load}; {versions}; {m['time'][:10]}.{left_out}"


# --- cells ------------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _why_not(row: Mapping[str, Any], name: str) -> str:
    return "wrong" if name in row["disagree"] else "fails" if name in row["failed"] else ""


def _title(report: Report, name: str) -> str:
    return report["peers"][name]["title"] if name in report["peers"] else name


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _number(value: float) -> str:
    """Format a number with up to three digits, or as a whole number."""
    if abs(value) < 10:
        return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _duration(ms: float) -> str:
    return f"{_number(ms)} ms" if ms < 10_000 else f"{_number(ms / 1000)} s"


def _median(found: Mapping[str, float] | None) -> str:
    return _number(found["median"]) if found else ""


def _spread(found: Mapping[str, float] | None) -> str:
    if not found:
        return ""
    return _number(found["median"]) + (f" ± {_number(found['iqr'])}" if found["rounds"] > 1 else "")


_times = _spread
