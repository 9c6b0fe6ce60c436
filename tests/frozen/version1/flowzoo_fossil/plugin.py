"""The metadata: every field that version 1 had is given."""

from flowzoo.api import Architecture, Citation, Preset, Published

ARCHITECTURE = Architecture(
    api_version=1,
    name="fossil",
    summary="Couplings between the halves of the channels",
    config="flowzoo_fossil.config:FossilConfig",
    build="flowzoo_fossil.model:build",
    presets={
        "tiny": Preset(summary="8x8 images", config={"image_shape": (1, 8, 8)}),
        "cifar10": Preset(
            summary="A preset with everything",
            config={"image_shape": (3, 32, 32), "steps": 4},
            dataset="cifar10",
            recipe=None,
            published=Published(bpd=3.5, dataset="CIFAR-10 test", source="Table 1", protocol="one sample"),
            parameters=1_000,
            parameters_note="counted by hand",
        ),
    },
    citations=(
        Citation(
            key="doe2020fossil",
            title="Fossils",
            authors=("Jane Doe",),
            year=2020,
            venue="arXiv",
            arxiv="2001.00001",
        ),
    ),
    manifest=None,
)
