"""Every bijector inverts, and its log-determinant is that of its Jacobian. Adding one is one line in CASES."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowzoo.bijectors import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AlternateColumns,
    Autoregressive,
    Bijector,
    Chain,
    ChannelHalves,
    Checkerboard,
    ConditionalPrior,
    ConstantConv1x1,
    CountedHistogramCDF,
    DiagonalScaling,
    FactorOut,
    FixedAffine,
    Flatten,
    FlowBatchNorm,
    HistogramCDF,
    InterleavedFeatures,
    Inverse,
    InvertibleConv1x1,
    InvertibleConv1x1LU,
    LearnedTop,
    Logit,
    MaskedCheckerboard,
    MixtureLogisticCoupling,
    Patches,
    Permutation,
    ScaleMap,
    Sigmoid,
    Squeeze,
    Standardize,
    Whitening,
)
from flowzoo.errors import InputError
from flowzoo.nets.made import MADE

IMAGE = (4, 4, 4)
VECTOR = (7,)


class Doubling(Autoregressive):
    """z_i = 2 x_i + m_i, m_i of the values before: the least that an autoregressive bijector has to say."""

    def __init__(self) -> None:
        super().__init__(MADE(torch.arange(1, 8), (9,), 1, "tanh"))

    def _map(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x + parameters[..., 0], torch.full_like(x, 2.0).log()

    def _unmap(self, z: Tensor, parameters: Tensor) -> Tensor:
        return (z - parameters[..., 0]) / 2


class Net(nn.Module):
    """Any network will do: one smooth layer, 3x3 for images."""

    def __init__(self, inputs: int, outputs: int, context: int = 0, image: bool = True) -> None:
        super().__init__()
        self.layer: nn.Module = (
            nn.Conv2d(inputs + context, outputs, 3, padding=1)
            if image
            else nn.Linear(inputs + context, outputs)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = torch.sin(self.layer(x if context is None else torch.cat((x, context), 1)))
        return out


def affine(partition: object, channels: int, **options: str) -> AffineCoupling:
    scale_map = ScaleMap(options.pop("scale_map", "tanh"), channels)  # type: ignore[arg-type]
    return AffineCoupling(partition, Net(channels, 2 * channels), scale_map, **options)  # type: ignore[arg-type]


def factor_out(prior: bool) -> FactorOut:
    rest = Chain(affine(Checkerboard(), 2), Flatten((2, 4, 4)))
    return FactorOut(rest, ConditionalPrior(Net(2, 4)) if prior else None)


CASES: dict[str, tuple[tuple[int, ...], Callable[[], Bijector]]] = {
    "additive": (IMAGE, lambda: AdditiveCoupling(ChannelHalves(), Net(2, 2))),
    "additive, interleaved": (
        VECTOR,
        lambda: AdditiveCoupling(InterleavedFeatures(), Net(4, 3, image=False)),
    ),
    "additive, interleaved'": (
        VECTOR,
        lambda: AdditiveCoupling(InterleavedFeatures(True), Net(3, 4, image=False)),
    ),
    "affine, halves": (IMAGE, lambda: affine(ChannelHalves(), 2)),
    "affine, halves'": (IMAGE, lambda: affine(ChannelHalves(swap=True), 2)),
    "affine, columns": (IMAGE, lambda: affine(AlternateColumns(), 4)),
    "affine, checkerboard": (IMAGE, lambda: affine(Checkerboard(True), 4)),
    "affine, masked": (IMAGE, lambda: affine(MaskedCheckerboard(), 4)),
    "affine, masked'": (IMAGE, lambda: affine(MaskedCheckerboard(True), 4)),
    "affine, exp": (IMAGE, lambda: affine(ChannelHalves(), 2, scale_map="exp")),
    "affine, soft-tanh": (IMAGE, lambda: affine(ChannelHalves(), 2, scale_map="soft-tanh")),
    "affine, sigmoid2": (IMAGE, lambda: affine(ChannelHalves(), 2, scale_map="sigmoid2")),
    "affine, clamp2": (IMAGE, lambda: affine(ChannelHalves(), 2, scale_map="clamp2")),
    "affine, x s + t": (IMAGE, lambda: affine(ChannelHalves(), 2, order="scale-shift")),
    "affine, interleaved": (IMAGE, lambda: affine(ChannelHalves(), 2, layout="interleaved")),
    "mixture": (IMAGE, lambda: MixtureLogisticCoupling(ChannelHalves(), Net(2, 2 * 11), 2, 3)),
    "mixture, columns": (IMAGE, lambda: MixtureLogisticCoupling(AlternateColumns(), Net(4, 4 * 14), 4, 4)),
    "mixture, masked": (IMAGE, lambda: MixtureLogisticCoupling(MaskedCheckerboard(), Net(4, 4 * 5), 4, 1)),
    "reversal": (IMAGE, lambda: Permutation.reversal(4)),
    "random permutation": (VECTOR, lambda: Permutation.random(7, seed=3)),
    "1x1 convolution": (IMAGE, lambda: InvertibleConv1x1(4)),
    "1x1 convolution, LU": (IMAGE, lambda: InvertibleConv1x1LU(4)),
    "1x1 convolution, actnorm": (IMAGE, lambda: InvertibleConv1x1(4, ActNorm((4,), 3.0))),
    "1x1 convolution, constant": (IMAGE, lambda: ConstantConv1x1(4, ActNorm((4,), 3.0))),
    "linear": (VECTOR, lambda: InvertibleConv1x1(7)),
    "actnorm": (IMAGE, lambda: ActNorm((4,))),
    "actnorm, per element": (IMAGE, lambda: ActNorm((4, 4, 4))),
    "actnorm, vector": (VECTOR, lambda: ActNorm((7,), 3.0)),
    "batch norm": (IMAGE, lambda: FlowBatchNorm(4)),
    "batch norm, vector": (VECTOR, lambda: FlowBatchNorm(7)),
    "batch norm, masked": (IMAGE, lambda: FlowBatchNorm(4, MaskedCheckerboard())),
    "batch norm, half": (IMAGE, lambda: FlowBatchNorm(2, ChannelHalves())),
    "diagonal scaling": (VECTOR, lambda: DiagonalScaling((7,))),
    "whitening": (VECTOR, lambda: Whitening(7)),
    "squeeze, channel": (IMAGE, lambda: Squeeze("channel")),
    "squeeze, offset": (IMAGE, lambda: Squeeze("offset")),
    "squeeze, checkerboard": (IMAGE, lambda: Squeeze("checkerboard")),
    "flatten": (IMAGE, lambda: Flatten(IMAGE)),
    "patches": (IMAGE, lambda: Patches(IMAGE, 2)),
    "standardize": (VECTOR, lambda: Standardize(7)),
    "histogram-cdf": (VECTOR, lambda: HistogramCDF(7, 5, shared=False)),
    "counted-histogram-cdf": (VECTOR, lambda: CountedHistogramCDF(7, 5, shared=True)),
    "autoregressive": (VECTOR, Doubling),
    "factor out": (IMAGE, lambda: factor_out(prior=False)),
    "factor out, prior": (IMAGE, lambda: factor_out(prior=True)),
    "learned top": (IMAGE, lambda: LearnedTop((4, 1, 1))),
    "logit": (IMAGE, lambda: Logit(0.05)),
    "logit, 1e-5": (IMAGE, lambda: Logit(1e-5)),
    "sigmoid": (IMAGE, Sigmoid),
    "fixed affine": (IMAGE, lambda: FixedAffine(-2.0, 0.5)),
    "chain": (
        IMAGE,
        lambda: Chain(ActNorm((4,)), affine(ChannelHalves(), 2), Squeeze(), Flatten((16, 2, 2))),
    ),
    "inverse": (IMAGE, lambda: Inverse(Chain(affine(ChannelHalves(), 2), Squeeze()))),
}


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Bijector, Tensor]:
    shape, constructor = CASES[name]
    torch.manual_seed(seed)
    bijector = constructor().to(dtype).eval()
    with torch.no_grad():
        for parameter in bijector.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for key, buffer in bijector.named_buffers():
            if key.endswith("running_mean") or key == "mean":
                buffer.normal_()
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif key == "weight":
                buffer.add_(0.1 * torch.randn_like(buffer))
    x = 0.05 + 0.9 * torch.rand(3, *shape, dtype=dtype)
    if name == "inverse":
        x = torch.rand(3, 16, 2, 2, dtype=dtype)
    return bijector, x


@pytest.mark.parametrize("name", CASES)
def test_inverse_undoes_forward(name: str) -> None:
    bijector, x = make(name)
    z, log_det = bijector(x)
    back, inverse_log_det = bijector.inverse(z)
    assert (back - x).abs().max() < 1e-10
    assert (log_det + inverse_log_det).abs().max() < 1e-10
    assert log_det.shape == (3,)


@pytest.mark.parametrize("name", CASES)
def test_inverse_undoes_forward_in_float32(name: str) -> None:
    bijector, x = make(name, dtype=torch.float32)
    back, _ = bijector.inverse(bijector(x)[0])
    assert (back - x).abs().max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_log_det_is_that_of_the_jacobian(name: str) -> None:
    bijector, x = make(name, seed=1)
    x = x[:1]
    jacobian = torch.autograd.functional.jacobian(lambda v: bijector(v)[0], x)
    true = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
    assert abs(true - bijector(x)[1][0]) < 1e-8


@pytest.mark.parametrize("name", CASES)
def test_items_of_a_batch_do_not_see_each_other(name: str) -> None:
    bijector, x = make(name, seed=2)
    z, log_det = bijector(x)
    z_alone, log_det_alone = bijector(x[1:2])
    assert torch.allclose(z[1:2], z_alone, atol=1e-12)
    assert torch.allclose(log_det[1:2], log_det_alone, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_state_loads_into_another_seed(name: str) -> None:
    bijector, x = make(name, seed=3)
    other, _ = make(name, seed=4)
    other.load_state_dict(bijector.state_dict())
    z, _ = bijector(x)
    assert torch.equal(z, other(x)[0])
    assert torch.equal(bijector.inverse(z)[0], other.inverse(z)[0])


@pytest.mark.parametrize("name", ["additive", "affine, halves", "mixture", "chain"])
def test_gradients_pass_through_both_directions(name: str) -> None:
    bijector, x = make(name, seed=5)
    z = bijector(x)[0].detach()
    for run, batch in ((bijector, x), (bijector.inverse, z)):
        bijector.zero_grad()
        out, log_det = run(batch)
        (out.square().sum() + log_det.sum()).backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in bijector.parameters())


@pytest.mark.parametrize("name", ["affine, halves", "mixture", "1x1 convolution, LU", "factor out, prior"])
def test_gradient_of_the_inverse_is_that_of_finite_differences(name: str) -> None:
    bijector, x = make(name, seed=6)
    with torch.no_grad():
        z = bijector(x[:1])[0]
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: bijector.inverse(v)[0], (z,), atol=1e-5)


def test_context_conditions_a_coupling() -> None:
    torch.manual_seed(0)
    coupling = AffineCoupling(ChannelHalves(), Net(2, 4, context=3), ScaleMap("exp", 2)).double()
    x, context = torch.rand(2, 4, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    z, _ = Chain(coupling)(x, context)
    assert (Chain(coupling).inverse(z, context)[0] - x).abs().max() < 1e-12
    assert not torch.allclose(z, coupling(x, context + 1)[0])


@pytest.mark.parametrize(
    "x",
    [torch.zeros(2, 4, 4, 4, dtype=torch.uint8), torch.zeros(4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 4)],
)
def test_what_does_not_fit_is_refused(x: Tensor) -> None:
    with pytest.raises(InputError, match="expected"):
        ActNorm((4, 4, 4))(x)


def test_a_wrong_log_det_is_caught() -> None:
    class Scalar(Bijector):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return x, x.sum()

    class Half(Bijector):
        def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            return x, x.new_zeros(x.shape[0]).half()

    for wrong in (Scalar(), Half()):
        with pytest.raises(InputError, match="log_det"):
            wrong(torch.zeros(3, 2))


def test_batch_norm_normalises_in_training_and_has_no_inverse_there() -> None:
    layer = FlowBatchNorm(4, momentum=1.0).double().train()
    x = 3 * torch.randn(16, 4, 4, 4, dtype=torch.float64) + 2
    z, log_det = layer(x)
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    with pytest.raises(InputError, match=r"eval\(\)"):
        layer.inverse(z)
    layer.eval()
    z_eval, log_det_eval = layer(x)
    assert torch.allclose(z, z_eval) and torch.allclose(log_det, log_det_eval)


def test_masked_batch_norm_takes_statistics_of_its_own_half_only() -> None:
    x = torch.randn(16, 2, 4, 4, dtype=torch.float64)
    layer = FlowBatchNorm(2, MaskedCheckerboard(), momentum=1.0).double().train()
    layer(x)
    half = Checkerboard().split(x)[1]
    assert torch.allclose(layer.running_mean, half.mean(dim=(0, 2, 3)))
    assert torch.allclose(layer.running_var, half.var(dim=(0, 2, 3), correction=0))


def test_cached_inverse_follows_the_weights() -> None:
    layer = InvertibleConv1x1(4).double().eval()
    x = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.inverse(layer(x)[0])
        layer.weight.mul_(2)
        assert (layer.inverse(layer(x)[0])[0] - x).abs().max() < 1e-12
        layer.load_state_dict(InvertibleConv1x1(4).double().state_dict())
        assert (layer.inverse(layer(x)[0])[0] - x).abs().max() < 1e-12


def test_checkpointed_gradients_equal_stored_ones() -> None:
    chain, x = make("chain", seed=7)
    assert isinstance(chain, Chain)
    gradients = []
    for memory in ("store", "checkpoint"):
        chain.set_memory(memory)
        chain.zero_grad()
        z, log_det = chain(x)
        (z.square().sum() - log_det.sum()).backward()
        gradients.append([p.grad.clone() for p in chain.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_patches_go_row_by_row_and_back() -> None:
    image = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 6)
    tokens, _ = Patches((2, 4, 6), 2)(image)
    assert tokens.shape == (1, 6, 8)
    assert set(tokens[0, 1].tolist()) == set(image[0, :, 0:2, 2:4].flatten().tolist())
    assert torch.equal(Patches((2, 4, 6), 2).inverse(tokens)[0], image)
