"""Pictures of flows over vectors: their numbers, their layers, and what cannot be drawn."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from flowzoo.analysis import densities
from flowzoo.analysis.densities import Fit, measure_fit, save_picture
from flowzoo.analysis.layers import layers_of, through_layers
from flowzoo.bijectors import Bijector, Chain, Flatten, Standardize
from flowzoo.cli.main import cli
from flowzoo.cli.picture import picture
from flowzoo.data import VectorSet, get_dataset
from flowzoo.errors import InputError
from flowzoo.evaluation import trained_model
from flowzoo.evaluation.trained_model import Target
from flowzoo.flow import Flow


class Bend(Bijector):
    """Shifts one of two numbers by the square of the other, and by the label's number where there is one."""

    def __init__(self, moved: int, *, bend: float = 0.4) -> None:
        super().__init__()
        self.moved, self.bend = moved, nn.Parameter(torch.tensor(bend))

    def _shift(self, x: Tensor, context: Tensor | None) -> Tensor:
        shift = torch.zeros_like(x)
        shift[:, self.moved] = self.bend * x[:, 1 - self.moved] ** 2
        if context is not None:
            shift[:, self.moved] += context @ torch.arange(context.shape[1], dtype=x.dtype)
        return shift

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x + self._shift(x, context), x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z - self._shift(z, context), z.new_zeros(len(z))


def flow(dims: int = 2, **options: int) -> Flow:
    standardize = Standardize(dims)
    standardize.set(torch.full((dims,), 0.5), torch.full((dims,), 2.0))
    bends = [Bend(0), Chain(Bend(1), Bend(0))] if dims == 2 else []
    return Flow(dims=dims, bijector=Chain(standardize, *bends), **options)


def points(name: str, count: int = 500) -> VectorSet:
    found = get_dataset(f"points:{name}").load("test").take(count)
    assert isinstance(found, VectorSet)
    return found


def description(path: Path) -> str:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 400
        return str(image.info["Description"])


def test_chains_are_taken_apart() -> None:
    model, x = flow(), points("two-moons").vectors
    assert [type(layer).__name__ for layer in layers_of(model.bijector)] == [
        "Standardize",
        "Bend",
        "Bend",
        "Bend",
    ]
    stages = through_layers(model, x)
    assert [stage.layer for stage in stages] == [0, 1, 2, 3, 4]
    assert torch.equal(stages[0].points, x)
    torch.testing.assert_close(stages[1].points, (x - 0.5) / 2)
    torch.testing.assert_close(stages[-1].points, model.encode(x))


def test_labels_take_part_in_the_layers() -> None:
    model, data = flow(classes=2), points("two-moons")
    found = through_layers(model, data.vectors, data.labels)[-1].points
    torch.testing.assert_close(found, model.encode(data.vectors, data.labels))
    with pytest.raises(InputError, match="averages over labels"):
        through_layers(model, data.vectors)
    dropout = flow(classes=2, label_dropout=True)
    assert not torch.allclose(found, through_layers(dropout, data.vectors)[-1].points)


class Turn(Bijector):
    """A rotation by a right angle, taken as a way through time; ``waypoints`` are on it."""

    def _turned(self, x: Tensor, time: float) -> Tensor:
        cos, sin = math.cos(time * math.pi / 2), math.sin(time * math.pi / 2)
        return torch.stack((cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]), dim=1)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._turned(x, 1.0), x.new_zeros(len(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._turned(z, -1.0), z.new_zeros(len(z))

    def waypoints(self, x: Tensor, context: Tensor | None, count: int) -> list[tuple[float, Tensor]]:
        times = [place / (count + 1) for place in range(1, count + 1)]
        return [(time, self._turned(x, time)) for time in times]


def test_a_layer_that_moves_points_through_time_shows_the_way(tmp_path: Path) -> None:
    data = points("two-moons", 200)
    x = data.vectors
    model = Flow(dims=2, bijector=Chain(Bend(0), Turn()))
    assert Bend(0).waypoints(x, None, 3) == []
    assert [stage.time for stage in through_layers(model, x)] == [None] * 3
    found = through_layers(model, x, waypoints=3)
    assert [(stage.layer, stage.time) for stage in found] == [
        (0, None), (1, None), (2, 0.25), (2, 0.5), (2, 0.75), (2, None),
    ]  # fmt: skip
    bent = found[1].points
    torch.testing.assert_close(
        found[3].points, (bent @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]])) / math.sqrt(2)
    )
    torch.testing.assert_close(found[-1].points, model.encode(x))
    shown = densities._stages(model, data)
    titles = [densities._title(stage, shown) for stage in shown]
    assert (titles[0], titles[-1], len(titles)) == ("data $x$", "latent $z$", 6)
    assert sum(title.startswith("time 0.") for title in titles) == 3
    save_picture(model, data, tmp_path / "a.png")
    assert "nats" in description(tmp_path / "a.png")


def test_the_fit_is_the_mean_over_the_vectors() -> None:
    model, data = flow(), points("two-moons", 5000)  # more than a batch
    losses = -model.log_prob(data.vectors).detach()
    fit = measure_fit(model, data)
    assert fit.nats == pytest.approx(float(losses.mean()), abs=1e-5)
    assert fit.error == pytest.approx(float(losses.std()) / math.sqrt(5000), rel=1e-4)
    assert fit.gap == pytest.approx(fit.nats - 2.393879195966)
    assert Fit(1.0, 0.1, 5, None).gap is None
    apart = data.true_log_prob(data.vectors) + losses
    assert fit.divergence == pytest.approx(float(apart.mean()), abs=1e-5)
    assert fit.divergence_error == pytest.approx(float(apart.std()) / math.sqrt(5000), rel=1e-4)


@pytest.mark.parametrize("name", ["two-moons", "checkerboard", "mixture-1d"])
def test_a_picture_states_model_data_and_nats(tmp_path: Path, name: str) -> None:
    model, data = flow(2 if name != "mixture-1d" else 1).train(), points(name)
    fit = save_picture(model, data, tmp_path / "a.png", name="mine")
    text = description(tmp_path / "a.png")
    assert f"mine on points:{name}, test split: {fit.nats:.4f}" in text
    assert f"true entropy {data.true_entropy:.4f}" in text
    assert model.training
    if name == "mixture-1d":
        save_picture(model, data, tmp_path / "b.png", name="mine")
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_of_data_whose_density_nobody_knows(tmp_path: Path) -> None:
    data = VectorSet(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)))
    save_picture(Flow(dims=2, bijector=Bend(0)), data, tmp_path / "a.png")
    assert "entropy" not in description(tmp_path / "a.png")


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_picture_of_a_conditional_flow(tmp_path: Path, dims: int, labelled: bool) -> None:
    name = ("mixture-1d", "claw-1d", "smiley", "checkerboard")[2 * dims - 1 - labelled]
    model, data = flow(dims, classes=3), points(name)
    assert (data.labels is not None) is labelled
    fit = save_picture(model, data, tmp_path / "a.png")
    assert fit.nats == pytest.approx(-float(model.log_prob(data.vectors).detach().mean()), abs=1e-4)
    assert "nats" in description(tmp_path / "a.png")


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    images = Flow(image_shape=(1, 2, 2), bijector=Flatten((1, 2, 2)))
    wide = Flow(dims=3, bijector=Standardize(3))
    for model, match in ((images, "of images"), (wide, "3 numbers"), (flow(1), r"shape \(2,\)")):
        with pytest.raises(InputError, match=match):
            save_picture(model, points("two-moons"), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(picture, list(arguments), standalone_mode=False)


def test_the_command_draws_and_says_the_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No architecture that ships is over vectors, so the target is made here."""
    model = flow()
    for dataset in ("points:two-moons", ""):
        target = Target(name="mine", flow=model, entry=None, dataset=dataset)
        monkeypatch.setattr(trained_model, "find_target", lambda name, target=target: target)
        result = run("runs/mine", "-o", str(tmp_path / "a.png"), "--device", "cpu", "--json")
        if dataset:
            row = json.loads(result.stdout)
            assert row["nats"] == pytest.approx(measure_fit(model, points("two-moons", 10_000)).nats)
            assert (row["dataset"], row["split"], row["vectors"]) == (dataset, "test", 10_000)
            assert "mine on points:two-moons" in description(Path(row["picture"]))
            continue
        assert "give --data" in str(result.exception)
        assert "shape (1,)" in str(run("mine", "--data", "points:claw-1d", "--device", "cpu").exception)
        assert "holds images" in str(run("mine", "--data", "mnist", "--device", "cpu").exception)


def test_the_command_refuses_other_files() -> None:
    assert "ending with .png" in str(run("nice-mnist", "-o", "a.jpg").exception)


def test_two_moons_from_nothing_to_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"five lines:\n\n```sh\n(.*?)```", page, re.DOTALL)
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert len(lines) == 5
    quick = {
        "recipe": ["--set", "model.layers=2", "--set", "model.hidden=[8]"],
        "train": ["--set", "train.steps=3", "--set", "train.samples=0", "--set", "train.validate_images=50"],
        "eval": ["--limit", "50"],
    }
    for words in lines:
        shown, _, to = " ".join(words).partition(" > ")
        result = CliRunner().invoke(cli, [*shown.split(), *quick.get(words[0], [])], standalone_mode=False)
        assert result.exception is None, result.output
        if to:
            Path(to).write_text(result.stdout, encoding="utf-8")
        if words[0] == "eval":
            assert "true entropy" in result.stdout
    assert len(Path("points.csv").read_text(encoding="utf-8").splitlines()) in (1000, 1001)
    with Image.open("moons.png") as drawn:
        assert min(drawn.size) > 100
