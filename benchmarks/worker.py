"""One measurement in a process of its own: prepared once, then run whenever a line arrives on standard input."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.rss import peak, reset_peak

# Libraries print as they please; a line that begins so is an answer.
MARK = "measured: "


def main() -> None:
    """Reads a specification, prepares what it names, and answers each line with the runs it made.

    Of a specification with ``items`` it measures these and ends.
    """
    spec = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(spec.get("threads", 1))
    if "items" in spec:
        from benchmarks.timing import answer_items

        _answer([])
        return answer_items(spec, prepare, _answer)
    runs = {task: prepare(spec | {"task": task}) for task in spec.get("tasks", ["run"])}
    # Loading, compilation of kernels and caches are not what is measured.
    for run in runs.values():
        for _ in range(spec.get("warm_up", 2)):
            run()
    _answer([])
    for _ in sys.stdin:
        _answer([measure(run, spec) | {"task": task} for task, run in runs.items()])
    return None


def prepare(spec: dict[str, Any]) -> Callable[[], Any]:
    """The callable that a specification's ``subject`` names."""
    from benchmarks import captured, models, numerics
    from benchmarks.families import loop_task
    from benchmarks.peers import LIBRARIES, SPECIAL, peer_task
    from benchmarks.workloads import Workload, floor_task, flow_task, plain_task

    subject = spec["subject"]
    own = {
        "flowzoo": flow_task,
        "plain": plain_task,
        "floor": floor_task,
        "loop": loop_task,
        **captured.SUBJECTS,
    }
    if subject in (*own, *LIBRARIES, *SPECIAL):
        workload = Workload(**spec["workload"])
        make = own[subject] if subject in own else partial(peer_task, subject)
        return make(workload, spec["task"])
    subjects = {**numerics.SUBJECTS, **models.SUBJECTS}
    return subjects[subject](**spec.get("arguments", {}))


def measure(run: Callable[[], Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of one run, and what it returned.

    With one thread on the CPU the seconds are the process's own, which neighbours on the machine do not lengthen.
    """
    if spec.get("workload", {}).get("device", "cpu").startswith("cuda"):
        return _measure_on_cuda(run)
    own_time = spec.get("threads", 1) == 1 and not spec.get("wall", False)
    clock = time.process_time if own_time else time.perf_counter
    before = reset_peak()
    start = clock()
    result = run()
    seconds = clock() - start
    return {"seconds": seconds, "before": before, "peak": peak(), "result": result}


def _measure_on_cuda(run: Callable[[], Any]) -> dict[str, Any]:
    """The same on a GPU: by the clock on the wall until its work is done, and the memory of its tensors."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "before": before,
        "peak": torch.cuda.max_memory_allocated(),
        "result": result,
    }


def _answer(content: list[dict[str, Any]]) -> None:
    sys.stdout.write(MARK + json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
