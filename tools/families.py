"""The families of architectures under which the documentation lists models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowzoo.manifest.read import Entry

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Couplings": ("nice", "realnvp", "glow", "flowpp", "splines", "jet"),
    "Autoregressive": ("maf", "naf", "tarflow", "pixelcnn"),
    "Residual and continuous": ("residual", "ffjord"),
    "Elementwise": ("cdf",),
    "Integer": ("idf",),
    "VAE": ("fvae",),
}
OTHER = "Other"


def family(architecture: str) -> str:
    """The heading under which models of ``architecture`` stand: ``Other`` for one that no family names."""
    return next((name for name, members in FAMILIES.items() if architecture in members), OTHER)


def by_family(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    """``entries`` under their families, in the order of ``FAMILIES``; families without an entry are left out."""
    groups: dict[str, list[Entry]] = {name: [] for name in (*FAMILIES, OTHER)}
    for entry in entries:
        groups[family(entry.architecture)].append(entry)
    return {name: members for name, members in groups.items() if members}
