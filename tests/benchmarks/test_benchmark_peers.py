"""Peers in the benchmark do flowzoo's work: the same networks on the same data, in models that invert.

Needs the libraries of the extra ``benchmark``; those that are missing are skipped.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.comparison import glows, others
from benchmarks.families import looped, looping, workloads
from benchmarks.peers import BUILDERS, LIBRARIES, NOTES, SPECIAL, build_peer, peer_task, peers_of
from benchmarks.peers.common import checkerboard
from benchmarks.sections import Settings
from benchmarks.workloads import TASKS, Workload, batch_of, build, coupling_networks

WORKLOADS: dict[str, Workload] = {**glows(Settings(smallest=True)), **others(Settings(smallest=True))}
PAIRS = [(name, library) for name, workload in WORKLOADS.items() for library in peers_of(workload)]
FAMILIES: dict[str, Workload] = workloads(Settings(smallest=True))
KIN = [(name, library) for name, workload in FAMILIES.items() for library in peers_of(workload)]

pytestmark = pytest.mark.filterwarnings("ignore:torch.lu:UserWarning", "ignore:torch.tri:UserWarning")


def installed(library: str) -> str:
    """The library's name; skips the test if it is missing."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return library


def operations(run: Any) -> int:
    """Multiplications and additions of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_every_task_runs(name: str, library: str, task: Any) -> None:
    run = peer_task(installed(library), WORKLOADS[name], task)
    run()
    run()


@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_peers_compute_what_the_coupling_networks_do(name: str, library: str) -> None:
    workload = WORKLOADS[name]
    peer = build_peer(installed(library), workload)
    networks = coupling_networks(workload)
    expected = operations(lambda: [net(*given) for net, given in networks])
    # Mixing channels comes on top in a Glow; in models as small as these it shows.
    limit = 1.6 if workload.architecture == "glow" else 1.01
    assert expected <= operations(lambda: peer(batch_of(workload))) <= limit * expected


@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_peers_give_finite_densities_and_images(name: str, library: str) -> None:
    workload = WORKLOADS[name]
    peer = build_peer(installed(library), workload)
    images = batch_of(workload)
    with torch.no_grad():
        assert peer(images).isfinite().all()
        drawn = peer.eval().sample(len(images))
    assert drawn.dtype == torch.uint8
    assert drawn.numel() == images.numel()


@pytest.mark.parametrize("name", [name for name in WORKLOADS if "realnvp" in name])
def test_our_parts_in_normflows_invert(name: str) -> None:
    workload = WORKLOADS[name]
    if "normflows" not in peers_of(workload):
        pytest.skip("not expressible")
    model = build_peer(installed("normflows"), workload).model.double()
    x = torch.rand(workload.batch, *workload.resolved().image_shape, dtype=torch.float64)
    latents, log_det = model.inverse_and_log_det(x)
    back, inverse_log_det = model.forward_and_log_det(latents)
    _same(x, back, log_det, inverse_log_det)


@pytest.mark.parametrize("name", [name for name in WORKLOADS if "realnvp" in name])
def test_our_parts_in_nflows_invert(name: str) -> None:
    workload = WORKLOADS[name]
    if "nflows" not in peers_of(workload):
        pytest.skip("not expressible")
    model = build_peer(installed("nflows"), workload).model.double()
    x = torch.rand(workload.batch, *workload.resolved().image_shape, dtype=torch.float64)
    z, log_det = model._transform(x)
    back, inverse_log_det = model._transform.inverse(z)
    _same(x, back, log_det, inverse_log_det)


@pytest.mark.parametrize(("name", "library"), KIN)
def test_kin_train_score_and_sample(name: str, library: str) -> None:
    workload = FAMILIES[name]
    for task in TASKS:
        peer_task(installed(library), workload, task)()
    peer, batch = build_peer(library, workload), batch_of(workload)
    with torch.no_grad():
        assert peer(batch).shape == (workload.batch,)
        assert peer(batch).isfinite().all()
        drawn = peer.eval().sample(workload.batch)
    assert drawn.dtype == batch.dtype
    assert drawn.numel() == batch.numel()


# The others' networks are of another kind, as the notes say.
@pytest.mark.parametrize(
    ("name", "library"), [p for p in KIN if p[1] in ("normflows", "nflows", "torchdiffeq")]
)
def test_kin_have_as_many_weights(name: str, library: str) -> None:
    counts = [
        sum(p.numel() for p in module.parameters() if p.requires_grad)
        for module in (build(FAMILIES[name])[0], build_peer(installed(library), FAMILIES[name]))
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


@pytest.mark.parametrize("name", [name for name in FAMILIES if "MAF" in name or "NSF" in name])
def test_weights_are_stirred(name: str) -> None:
    flow, batch = build(FAMILIES[name])
    assert all((parameter != 0).all() for parameter in flow.parameters())
    x = flow.sample(len(batch), seed=0)
    assert x.shape == batch.shape


@pytest.mark.parametrize("name", list(looped(Settings(smallest=True))))
def test_the_plain_loop_draws_the_same_samples(name: str) -> None:
    flow = build(looped(Settings(smallest=True))[name])[0].eval()
    expected = flow.sample(2, seed=0)
    calls: list[int] = []
    for module in flow.modules():
        if hasattr(module, "_one_by_one"):
            whole = module._with_gradients
            module._with_gradients = lambda *z, whole=whole: calls.append(1) or whole(*z)
    found = looping(flow).sample(2, seed=0)
    assert calls
    # Of integers, so that a rounding error can be one level.
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_checkerboard_and_its_other_colour_make_a_whole() -> None:
    even, odd = (checkerboard(3, 4, odd=odd) for odd in (False, True))
    assert torch.equal(even + odd, torch.ones(3, 4))
    assert even[0, 0] == 1
    assert even[0, 1] == even[1, 0] == 0


def test_every_library_is_measured_or_said_to_be_unable() -> None:
    for architecture, builders in BUILDERS.items():
        notes = NOTES[architecture]
        special = SPECIAL if architecture in {w.architecture for w in FAMILIES.values()} else ()
        for library in (*LIBRARIES, *special):
            told = notes.get(library, notes.get("all", ""))
            assert (library in builders) != ("cannot" in told or "none can" in told)


def _same(x: Tensor, back: Tensor, *log_dets: Tensor) -> None:
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(sum(log_dets), torch.zeros(len(x), dtype=x.dtype), rtol=0, atol=1e-6)
