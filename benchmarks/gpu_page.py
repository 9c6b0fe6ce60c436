"""The half of ``docs/cuda.md`` on speed: what is computed from its rows, in tables and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.cells import table

WAYS = {"plain": "plain", "flowzoo": "engine", "compiled": "torch.compile", "graphs": "CUDA graphs"}
"""The ways to run a flow, by subject, as the page names them."""

DEFAULT = "engine"
OURS = ("floor", *WAYS.values())
ORDER = ("train", "train, bfloat16", "log_prob", "sample")

PEER, FLOOR, MARGIN = 1.5, 1.3, 1.05
"""What is wanted of training: times the speed of the fastest peer, times the time of the floor; and the lead over the
default, as a ratio of times, from which another way is named."""

Row = Mapping[str, Any]

NOTE = (
    "Images a second; the time as a multiple of the floor's (the networks alone, same dtype); the speed as a multiple "
    "of the fastest peer's; and the most memory that PyTorch had reserved after the first call, a graph's own pool "
    "included. The fastest of several runs, each of many calls, after half a second of work; one model at a time in "
    "memory. `plain` is the engine switched off. In `train, bfloat16` networks run under autocast; peers are float32. "
    "CUDA graphs and torch.compile sample from a given latent without the checks of the result, CUDA graphs with "
    "weights frozen."
)


def compared(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows with ``of_floor``, a ratio of times, and ``of_peer``, a ratio of speeds; None where there is nothing."""
    rows = list(rows)
    found = []
    for row in rows:
        seconds = _seconds(rows, row["workload"], row["task"])
        own = seconds.get(row["subject"])
        floor, peer = seconds.get("floor"), _fastest_peer(seconds)
        ratios = {
            "of_floor": own / floor if own and floor else None,
            "of_peer": seconds[peer] / own if own and peer and row["subject"] != "floor" else None,
        }
        found.append({**row, **ratios})
    return found


def speed(rows: Sequence[Row]) -> str:
    """Note, verdicts, the best of the ways, and the table of all rows."""
    rows = compared(rows)
    parts = [NOTE, "### What was wanted", verdicts(rows), "### Which way is best", best(rows)]
    return "\n\n".join([*parts, "### All measurements", _table(rows)])


def verdicts(rows: Sequence[Row]) -> str:
    """Whether training reaches what is wanted of it, one line a workload, in words."""
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        seconds = _seconds(rows, workload, "train")
        lines.append(f"- {workload}: {_of_peer(rows, workload, seconds)}; {_of_floor(seconds)}.")
    wanted = (
        f"Training by the default, the {DEFAULT}, at {PEER:g} times the speed of the fastest peer or more, and at "
        f"{FLOOR:g} times the floor's time or less."
    )
    return "\n".join([wanted, "", *lines])


def best(rows: Sequence[Row]) -> str:
    """Which of the ways is the fastest for each workload and task, and where it is not the default."""
    cells, leads, beside = [], [], False
    for workload, task in dict.fromkeys((row["workload"], row["task"]) for row in _sorted(rows)):
        found = _seconds(rows, workload, task)
        ways = {way: found[way] for way in WAYS.values() if way in found}
        if not ways:
            cells.append((workload, task, "-", "-"))
            continue
        fastest = min(ways, key=lambda way: ways[way])
        cells.append((workload, task, fastest, f"{ways[fastest] * 1000:.2f}"))
        lead = ways[DEFAULT] / ways[fastest] if DEFAULT in ways else math.nan
        beside = beside or (DEFAULT in ways and len(ways) > 1)
        if lead > MARGIN:
            more = f"{(lead - 1) * 100:.0f} % faster than the {DEFAULT}, which is the default"
            unchecked = task == "sample" and fastest in ("torch.compile", "CUDA graphs")
            leads.append(
                f"{workload}, {task}: {fastest} is best, {more}{'; it checks no result' if unchecked else ''}."
            )
    percent = f"{(MARGIN - 1) * 100:.0f} %"
    if not leads:
        nothing = f"Nothing that was measured is more than {percent} faster than the default."
        leads = [nothing if beside else "Nothing was measured beside the default."]
    said = f"The default on CUDA is the {DEFAULT}, as everywhere; nothing is chosen by these figures."
    return "\n\n".join([said, table(("model, batch", "task", "best", "ms"), cells), *leads])


def _of_peer(rows: Sequence[Row], workload: str, seconds: Mapping[str, float]) -> str:
    own, peer = seconds.get(DEFAULT), _fastest_peer(seconds)
    missing = [
        row["subject"]
        for row in rows
        if row["workload"] == workload
        and row["task"] == "train"
        and row["subject"] not in OURS
        and row["error"]
    ]
    unmeasured = f" (not measured: {', '.join(missing)})" if missing else ""
    if own is None:
        return f"the {DEFAULT} was not measured"
    if peer is None:
        return "no peer was measured" + unmeasured if missing else "no peer can express it"
    ratio = seconds[peer] / own
    verdict = "reached" if ratio >= PEER else "not reached"
    return f"{ratio:.2f} times the fastest peer, {peer}{unmeasured}: {PEER:g} is {verdict}"


def _of_floor(seconds: Mapping[str, float]) -> str:
    own, floor = seconds.get(DEFAULT), seconds.get("floor")
    if own is None or floor is None:
        return "there is nothing to compare with the floor"
    return f"{own / floor:.2f} times the floor: {FLOOR:g} is {'reached' if own / floor <= FLOOR else 'not reached'}"


def _seconds(rows: Iterable[Row], workload: str, task: str) -> dict[str, float]:
    """Seconds of a call by subject."""
    return {
        row["subject"]: row["seconds"]
        for row in rows
        if row["workload"] == workload and row["task"] == task and row["error"] is None
    }


def _fastest_peer(seconds: Mapping[str, float]) -> str | None:
    return min((name for name in seconds if name not in OURS), key=lambda name: seconds[name], default=None)


def _sorted(rows: Iterable[Row]) -> list[Row]:
    """By workload and task; among these as they were measured."""
    rows = list(rows)
    known = list(dict.fromkeys(row["workload"] for row in rows))
    return sorted(rows, key=lambda row: (known.index(row["workload"]), ORDER.index(row["task"])))


def _table(rows: Iterable[Row]) -> str:
    cells = [
        (row["workload"], row["task"], row["subject"], *_figures(row), row["error"] or row.get("note") or "")
        for row in _sorted(rows)
    ]
    headings = (
        "model, batch",
        "task",
        "subject",
        "images/s",
        "x floor",
        "x fastest peer",
        "peak MiB",
        "note",
    )
    return table(headings, cells)


def _figures(row: Row) -> tuple[str, str, str, str]:
    if row["error"]:
        return ("-",) * 4
    floor, peer = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("of_floor", "of_peer"))
    return f"{row['per_second']:.1f}", floor, peer, f"{row['peak'] / 2**20:.0f}"
