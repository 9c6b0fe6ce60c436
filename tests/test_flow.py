"""Flow: images of integers in, nats, bits and images out; errors that say what to do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import flowzoo
from flowzoo.bijectors import Chain, DiagonalScaling, FixedAffine, Flatten
from flowzoo.densities.base import StandardLogistic, StandardNormal
from flowzoo.densities.dequantization import VariationalDequantization
from flowzoo.errors import ConfigError, InputError
from flowzoo.flow import Flow
from flowzoo.testing import random_images, randomize


def glow(**overrides: object) -> Flow:
    torch.manual_seed(0)
    return randomize(flowzoo.create("glow-tiny", **overrides).double().eval(), seed=1)


def identity(n_bits: int = 8, scale: float = 1.0, shift: float = 0.0) -> Flow:
    stack = Chain(Flatten((1, 2, 2)), DiagonalScaling((4,)), FixedAffine(scale, shift))
    return Flow(image_shape=(1, 2, 2), bijector=stack, n_bits=n_bits).double()


def test_log_prob_is_the_formula_of_the_docstring() -> None:
    flow = identity(scale=3.0, shift=-1.5)
    x = random_images(flow, 5, seed=0)
    noise = torch.rand(5, 1, 2, 2, dtype=torch.float64)
    z = ((x + noise) / 256).flatten(1) * 3 - 1.5
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + 4 * math.log(3)
    assert torch.allclose(flow.log_prob(x, noise=noise), density - 4 * math.log(256))


def test_bits_per_dim_of_one_sample_is_log_prob_in_bits() -> None:
    flow = glow()
    x = random_images(flow, 3, seed=0)
    bits = flow.bits_per_dim(x, generator=torch.Generator().manual_seed(3))
    nats = flow.log_prob(x, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(bits, -nats / (flow.dims * math.log(2)))
    assert torch.allclose(bits, flow.nats_to_bits(nats))


def test_more_samples_average_probabilities_not_logs() -> None:
    flow = glow(dequantization="variational")
    x = random_images(flow, 3, seed=0)
    generator = torch.Generator().manual_seed(0)
    singles = torch.stack([flow.log_prob(x, generator=generator) for _ in range(4)])
    together = flow.bits_per_dim(x, samples=4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(together, flow.nats_to_bits(singles.logsumexp(0) - math.log(4)))
    assert flow.is_lower_bound and not glow().is_lower_bound


def test_uniform_noise_integrates_a_flat_density_exactly() -> None:
    # On [0, 1] with a steep logistic-free base the density is nearly flat: every image has nearly equal probability.
    flow = identity(n_bits=2, scale=1e-3)
    x = random_images(flow, 64, seed=0)
    bits = flow.bits_per_dim(x, generator=torch.Generator().manual_seed(0))
    expected = 2 + (math.log(1e3) + 0.5 * math.log(2 * math.pi)) / math.log(2)
    assert torch.allclose(bits, torch.full_like(bits, expected), atol=1e-5)


@pytest.mark.parametrize("n_bits", [1, 5, 8])
def test_decode_undoes_encode_with_the_low_bits_dropped(n_bits: int) -> None:
    flow = glow(n_bits=n_bits)
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    z = flow.encode(x)
    kept = x & (256 - 2 ** (8 - n_bits))
    assert z.shape == (6, flow.dims)
    assert torch.equal(flow.decode(z), kept)
    assert torch.equal(flow.reconstruct(kept), kept)
    noise = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(flow.log_prob(x, noise=noise), flow.log_prob(kept, noise=noise))


class NoContext(torch.nn.Module):
    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return x


@pytest.mark.parametrize(("logit", "expected"), [(-1.0, 0.26894142), (-9.0, 1 / 16), (9.0, 15 / 16)])
def test_encode_stands_where_learned_noise_does_but_off_the_edges(logit: float, expected: float) -> None:
    learned = VariationalDequantization(FixedAffine(0.1, logit), NoContext(), n_bits=8)
    stack = Chain(FixedAffine(256.0), Flatten((1, 2, 2)), DiagonalScaling((4,)))
    flow = Flow(image_shape=(1, 2, 2), bijector=stack, dequantization=learned).double()
    x = random_images(flow, 8, seed=0)
    torch.testing.assert_close(flow.encode(x), x.flatten(1).double() + expected, rtol=0, atol=1e-7)
    assert torch.equal(flow.reconstruct(x), x)


def test_temperature_scales_the_latent() -> None:
    flow = glow()
    hot = flow.encode(flow.sample(64, generator=torch.Generator().manual_seed(0))).std()
    cold = flow.encode(flow.sample(64, temperature=0.3, generator=torch.Generator().manual_seed(0))).std()
    mode = flow.sample(2, temperature=0.0)
    assert cold < hot
    assert torch.equal(mode[0], mode[1])
    assert flow.sample(0).shape == (0, 3, 8, 8)


def test_initialize_happens_once_and_is_remembered() -> None:
    torch.manual_seed(0)
    flow = flowzoo.create("glow-tiny")
    x = random_images(flow, 32, seed=0)
    assert not flow.is_initialized
    assert flow.initialize(x) and flow.is_initialized
    assert not flow.initialize(x)
    other = flowzoo.create("glow-tiny")
    other.load_state_dict(flow.state_dict())
    assert other.is_initialized


def test_summary_names_every_bijector_and_counts_parameters() -> None:
    flow = flowzoo.create("glow-tiny", device="meta")
    text = flow.summary()
    for word in (
        "Squeeze",
        "InvertibleConv1x1",
        "AffineCoupling",
        "FactorOut",
        "192",
        "UniformDequantization",
    ):
        assert word in text
    assert f"{sum(p.numel() for p in flow.parameters()):,} parameters" in text
    assert flowzoo.create("glow-tiny").train().training


def test_the_summary_indents_what_is_inside() -> None:
    lines = flowzoo.create("glow-tiny").summary().splitlines()
    depth = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines[1:22]}
    assert depth["Chain"] == depth["FactorOut"] + 2
    inner = [len(line) - len(line.lstrip()) for line in lines if line.strip().startswith("ActNorm")]
    around = [
        len(line) - len(line.lstrip()) for line in lines if line.strip().startswith("InvertibleConv1x1")
    ]
    assert inner == [depth + 2 for depth in around]
    assert len(set(inner)) == 2


def test_reduced_precision_stays_inside_the_networks() -> None:
    torch.manual_seed(0)
    flow = randomize(flowzoo.create("glow-tiny"), seed=1, scale=0.05)
    x = random_images(flow, 8, seed=0)
    noise = flow.draw_noise(8, generator=torch.Generator().manual_seed(0))
    exact = flow.log_prob(x, noise=noise)
    flow.set_network_dtype(torch.bfloat16)
    rounded = flow.log_prob(x, noise=noise)
    assert rounded.dtype == torch.float32
    assert 0 < float((flow.nats_to_bits(exact - rounded)).detach().abs().max()) < 0.05
    flow.set_network_dtype(None)
    assert torch.equal(flow.log_prob(x, noise=noise), exact)


@pytest.mark.parametrize("base", [StandardNormal(), StandardLogistic()], ids=["normal", "logistic"])
def test_base_densities_integrate_to_one_and_sample_what_they_promise(base: StandardNormal) -> None:
    grid = torch.linspace(-40, 40, 80_001, dtype=torch.float64)[:, None]
    assert abs(float(torch.trapezoid(base.log_prob(grid).exp(), grid[:, 0])) - 1) < 1e-9
    generator = torch.Generator().manual_seed(0)
    z = base.sample(100_000, 2, generator=generator, device=torch.device("cpu"), dtype=torch.float64)
    entropy = {"StandardNormal": 0.5 * math.log(2 * math.pi * math.e), "StandardLogistic": 2.0}
    found = -base.log_prob(z)
    assert (
        abs(float(found.mean()) / 2 - entropy[type(base).__name__])
        < 5 * float(found.std()) / 2 / 100_000**0.5
    )


WRONG: dict[str, tuple[Tensor, str]] = {
    "float images": (torch.rand(2, 3, 8, 8), r"to\(torch.uint8\)"),
    "other integers": (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "expected torch.uint8"),
    "no batch": (torch.zeros(3, 8, 8, dtype=torch.uint8), r"expects \(B, 3, 8, 8\)"),
    "channels last": (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r"expects \(B, 3, 8, 8\)"),
    "other size": (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"expects \(B, 3, 8, 8\)"),
    "other device": (torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta"), "move one"),
    "no images": (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "the batch is empty"),
    "numpy": (random_images(identity(), 2, seed=0).numpy(), r"torch.from_numpy\(x\)"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_images_are_refused_with_what_to_do(case: str) -> None:
    x, message = WRONG[case]
    for method in (glow().log_prob, glow().bits_per_dim, glow().encode):
        with pytest.raises(InputError, match=message):
            method(x)


def test_wrong_arguments_are_refused() -> None:
    flow = glow()
    x = random_images(flow, 2, seed=0)
    with pytest.raises(InputError, match="noise is a"):
        flow.log_prob(x, noise=torch.rand(1, 3, 8, 8))
    with pytest.raises(InputError, match="at least 1"):
        flow.bits_per_dim(x, samples=0)
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="temperature"):
            flow.sample(1, temperature=temperature)
    with pytest.raises(InputError, match="whole number"):
        flow.sample(2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="move one"):
        flow.decode(torch.zeros(2, 192, device="meta"))
    with pytest.raises(InputError, match=r"\(B, 192\)"):
        flow.decode(torch.zeros(2, 191))
    with pytest.raises(InputError, match="NaN or infinite"):
        flow.decode(torch.full((1, 192), float("nan"), dtype=torch.float64))
    with pytest.raises(ConfigError, match="1 to 8"):
        identity(n_bits=9)


def test_a_latent_is_taken_to_the_models_precision() -> None:
    flow = glow().float()
    z = flow.encode(random_images(flow, 2, seed=0))
    assert torch.equal(flow.decode(z.double()), flow.decode(z))


def test_a_stack_without_flatten_is_refused() -> None:
    flow = Flow(image_shape=(1, 2, 2), bijector=FixedAffine())
    with pytest.raises(InputError, match="End the stack with Flatten"):
        flow.log_prob(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_flows_in_train_mode_compute_as_in_eval_mode_and_stay_in_it() -> None:
    flow = randomize(flowzoo.create("flowpp-tiny", dropout=0.5).double(), seed=1)
    x = random_images(flow, 4, seed=0)
    expected = flow.eval().encode(x), flow.bits_per_dim(x, seed=1), flow.sample(2, seed=2)
    flow.train()
    found = flow.encode(x), flow.bits_per_dim(x, seed=1), flow.sample(2, seed=2)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
    assert flow.training


def test_gradients_are_recorded_where_they_are_asked_for() -> None:
    flow = glow()
    x = random_images(flow, 2, seed=0)
    for method in (flow.encode, flow.bits_per_dim):
        assert not method(x).requires_grad
        assert method(x, grad=True).requires_grad


def test_bits_per_dim_does_not_depend_on_the_batch_size() -> None:
    flow = glow(dequantization="variational")
    x = random_images(flow, 5, seed=0)
    together = flow.bits_per_dim(x, samples=3, seed=1)
    torch.testing.assert_close(flow.bits_per_dim(x, samples=3, seed=1, batch_size=2), together)
    nats = flow.log_prob(x, samples=3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(flow.nats_to_bits(nats), together)
    with pytest.raises(InputError, match="give one of them"):
        flow.log_prob(x, samples=2, noise=flow.draw_noise(5))


def test_samples_that_are_not_finite_are_refused_where_asked() -> None:
    flow = glow()
    with torch.no_grad():
        next(flow.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="NaN or infinite"):
        flow.sample(2, seed=0, on_nonfinite="raise")
    with pytest.raises(InputError, match="'redraw' or 'raise'"):
        flow.sample(2, on_nonfinite="ignore")  # type: ignore[arg-type]


def test_initialize_refuses_a_single_image() -> None:
    flow = flowzoo.create("glow-tiny")
    with pytest.raises(InputError, match="at least 2"):
        flow.initialize(random_images(flow, 1, seed=0))
    assert not flow.is_initialized


def test_initialize_warns_of_scales_that_fit_nothing_else() -> None:
    flow = flowzoo.create("nice-tiny")
    x = torch.full((8, *flow.image_shape), 7, dtype=torch.uint8)
    with pytest.warns(
        UserWarning, match=r"from 8 items the model gives [\d,]+ bits/dim: some scales are absurd"
    ):
        flow.initialize(x, noise=torch.full(x.shape, 0.5))


def test_bad_samples_are_drawn_again_and_good_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = glow().eval()
    sound = flow.sample(8, seed=3)
    decode, calls = type(flow)._decode_many, []

    def two_fail_at_first(
        self: Flow, z: Tensor, context: Tensor | None, size: int, *, drawn: bool
    ) -> tuple[Tensor, Tensor]:
        images, finite = decode(self, z, context, size, drawn=drawn)
        calls.append(len(z))
        if len(calls) % 2:  # the first draw of each call of sample
            finite[[1, 5]] = False
        return images, finite

    monkeypatch.setattr(type(flow), "_decode_many", two_fail_at_first)
    with pytest.warns(UserWarning, match="2 of 8 samples at temperature 1 were .* drawn again"):
        found = flow.sample(8, seed=3)
    with pytest.warns(UserWarning, match="2 of 8"):
        assert torch.equal(flow.sample(8, seed=3), found), "the generator decides what is drawn again"
    assert calls == [8, 2, 8, 2]
    good = [0, 2, 3, 4, 6, 7]
    assert torch.equal(found[good], sound[good])
    assert not torch.equal(found[[1, 5]], sound[[1, 5]])
