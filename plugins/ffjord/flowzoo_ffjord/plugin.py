"""Continuous flows' entry in the zoo: presets, published figures, citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

SOURCE = "Grathwohl et al. 2019 (arXiv 1810.01367), table 2"
COUNTED = "Counted from the layers of the authors' code, not published."


def _recipe(name: str) -> str:
    return f"flowzoo_ffjord:recipes/{name}.toml"


def _published(bpd: float, dataset: str, alpha: str) -> Published:
    return Published(
        bpd=bpd,
        dataset=dataset,
        source=SOURCE,
        protocol=f"logit with alpha = {alpha}, uniform noise, one draw; one probe an image; dopri5 with tolerance "
        "1e-5, whose steps are controlled for a whole batch, so that an image's figure depends on its batch",
        incomparable=("batch-dependent-solver", "one-sample"),
    )


def _points(name: str, dataset: str, title: str) -> Preset:
    return Preset(
        summary=title,
        config={
            "dims": 2,
            "blocks": 1,
            "activation": "tanh",
            "steps": 8,
            "eval_steps": 16,
            "trace": "exact",
        },
        dataset=f"points:{dataset}",
        recipe=_recipe(name),
    )


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "scales": 1,
            "squeeze_first": True,
            "blocks": 1,
            "hidden": (8,),
            "steps": 2,
        },
        recipe=_recipe("tiny"),
    ),
    "mnist": Preset(
        summary="Squeezed first, two scales, 32 channels, four steps, RNODE's penalties: for a laptop core",
        config={
            "image_shape": (1, 28, 28),
            "scales": 2,
            "squeeze_first": True,
            "blocks": 1,
            "hidden": (32, 32),
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "paper-mnist": Preset(
        summary="The multi-scale flow of the paper, on a grid of sixteen steps",
        config={"image_shape": (1, 28, 28), "alpha": 1e-6, "steps": 16},
        dataset="mnist",
        recipe=_recipe("paper-mnist"),
        published=_published(0.99, "MNIST, test", "1e-6"),
        parameters=800_646,
        parameters_note=COUNTED,
    ),
    "cifar10": Preset(
        summary="The multi-scale flow of the paper, on a grid of sixteen steps",
        config={"image_shape": (3, 32, 32), "scales": 4, "steps": 16},
        dataset="cifar10",
        recipe=_recipe("cifar10"),
        published=_published(3.40, "CIFAR-10, test", "0.05"),
        parameters=1_358_882,
        parameters_note=COUNTED,
    ),
    "moons": _points("moons", "two-moons", "Two moons by one flow, with the exact trace"),
    "checkerboard": _points(
        "checkerboard", "checkerboard", "A checkerboard by one flow, with the exact trace"
    ),
    "spirals": _points("spirals", "spirals", "Spirals by one flow, with the exact trace"),
    "gaussians": _points(
        "gaussians", "eight-gaussians", "Eight normals on a circle by one flow, with the exact trace"
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="ffjord",
    summary="Continuous flows: FFJORD, multi-scale for images, with RNODE's penalties",
    config="flowzoo_ffjord.config:FFJORDConfig",
    build="flowzoo_ffjord.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="grathwohl2019ffjord",
            title="FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models",
            authors=(
                "Will Grathwohl",
                "Ricky T. Q. Chen",
                "Jesse Bettencourt",
                "Ilya Sutskever",
                "David Duvenaud",
            ),
            year=2019,
            venue="ICLR 2019",
            arxiv="1810.01367",
        ),
        Citation(
            key="finlay2020train",
            title="How to Train Your Neural ODE: the World of Jacobian and Kinetic Regularization",
            authors=("Chris Finlay", "Jörn-Henrik Jacobsen", "Levon Nurbekyan", "Adam M. Oberman"),
            year=2020,
            venue="ICML 2020",
            arxiv="2002.02798",
        ),
    ),
)
