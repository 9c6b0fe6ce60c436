"""Built-in data sets of points, drawn from a seed: the toy problems of density estimation, with their entropies.

``python -m tools.points`` prints the entropies and digests anew.
"""

from __future__ import annotations

from flowzoo.data.api import SPLITS, Dataset, Split

__all__ = ["POINTS", "SIZES"]

SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
"""Points in each split."""

# Entropy in nats, and the SHA-256 of train, valid and test.
_RECORD = {
    "two-moons": (
        2.393879195966,
        "f50d7fe998ed3f71071c93758725069f98fd0c97f0139b0d9e1dd1e0c0fddce8",
        "cb48d4476bb339fc6983424dec89dc2fadeca8a8af53c15736873bd50075f8a8",
        "425b0a608a67b2cd24c4eb712bfaa244b90d52213731ea9cdb3f9e34fe1d0413",
    ),
    "eight-gaussians": (
        2.831578360526,
        "8926ebdcc7f4c89a6b81fae6f7eccef7645041440451f19ea85fa54388c1fbf0",
        "52b7ee3f88abd14b3f1f7d40e22bba1544beb7cea0db86200329734a8b6fe5f2",
        "afe0fe5e9e8244d6dc61d7763a139d90a49330bb2fae839ba55024c635383126",
    ),
    "checkerboard": (
        3.465735902800,
        "355d54454964ff5b4908d9096ea5f5f904551c97d3282f82229fb81e098e5839",
        "5ffc272394c6fb57d0611d5ce35227f6a44f254c559ccf4f2dd7f7e03a542bcb",
        "05e79f683be6130830ffc359db795b75b1124af9729964171da04d6e1436df9f",
    ),
    "spirals": (
        2.540617894298,
        "311967f78b2c20a3854bb73243c7d0f112bc1f9333c0edb129af19c59f45be5f",
        "3dcf5788821b93dccc5d346759406f711ccd0437fc931d8ca09080933ba5ff40",
        "7248ee6e2a4352ae88cc29ab9fe078b871e24b8aaf20643c1bb84b87635efc7e",
    ),
    "pinwheel": (
        2.320588485098,
        "d17d577a0dc306149cddae26226e166e765476ad699ed03f3544e8c5500271e0",
        "2a2357235d72bae82a831905262f49bbb58ae5d3f91e0cda0918a911dc1d0764",
        "12e6ce695feb02d5ef879ac40e44d86a5f5c1d378bacce398f2aa1730e4289e5",
    ),
    "smiley": (
        1.333929317768,
        "6054d84ed984bf47ff5da3880159b6c89d193a74dd269b8bb4b5a013f25bd4e6",
        "2cc44768491b709203eadfd694c8b7ded68f60e16b1ea9c24c72ea25f682cfde",
        "c27d6da1f1102fa8fb0466aa5040983a14091526c843ac816f0d4c1988e65f78",
    ),
    "rings": (
        3.485527650535,
        "ff8270c74994c617594e1c57ca839e8f905219bb97c70a7c4cc88a8f40075b0e",
        "87e6182a220395dfede24f74a70dea8c6ad471074faabb90b3bf92adadb543cf",
        "9de16572cccf28d13c041f36f0c3fe11515af6db1a52fbc07b95babfb57df547",
    ),
    "mixture-1d": (
        1.574246756663,
        "a13ae1478523bed2e4928e0aeb235fcad18ff244596b17f78a6fa0a313d7e0d5",
        "7516beb705aecff87757d7201a3f07fbe2dca73b459aacabd34e0284abaac581",
        "38dc92663747378e2fe514a6b7603d45eefeaca5e88639f9183b97a2236201b1",
    ),
    "claw-1d": (
        1.192764215731,
        "01bceac6926290e173080ffc5681706c95711d325a6e1b4bfc1922f5b11e52cd",
        "b87bd14c2b419b199b1339e3d56949f54ad9f8f06c97483b40b1414c66148650",
        "e2e0670c3f679b6759bbd9941f7d4695ac93ad6fa1e8f912e440e7fa1ffe0153",
    ),
    "comb-1d": (
        1.412700775659,
        "d163a316678091ac85b5aa2b6be0f7aa2a2a1259ae2fc637038e973e918af232",
        "95332569a4e835eeb95b50a4b459b5938b40b839d1f61566d288863280ae24a0",
        "4bbba3752d6cb15c4dbca0273c46f57e26b5790584681b1c189c4d14f642e917",
    ),
}


def _points(
    name: str, title: str, note: str, source: str, *, dims: int = 2, labels: tuple[str, ...] = ()
) -> Dataset:
    entropy, *digests = _RECORD[name]
    return Dataset(
        id=f"points:{name}",
        title=title,
        release="drawn from seed 0 by integer-keyed random numbers: the same bits everywhere",
        preprocessing=f"points-{name}-v1",
        preprocessing_note=note,
        kind="vectors",
        dims=dims,
        label_names=labels,
        splits={
            split: Split(description="drawn on the spot", size=SIZES[split], sha256=digest)
            for split, digest in zip(SPLITS, digests, strict=True)
        },
        reader="flowzoo.data.readers.points:read",
        terms="none: generated",
        attribution=source,
        how_to_get="nothing to get: flowzoo draws it.",
        options={"density": name, "entropy": entropy},
    )


_FFJORD = "after the toy data of Grathwohl et al., FFJORD, arXiv 1810.01367"
_CURVES_1992 = "Marron and Wand, Exact mean integrated squared error, Annals of Statistics, 1992"

POINTS: tuple[Dataset, ...] = (
    _points(
        "two-moons",
        "Two moons, 2-D",
        "Two half circles of radius 2, the lower one shifted by (2, 1), plus normal noise of standard deviation 0.2.",
        f"{_FFJORD}; scikit-learn's make_moons",
        labels=("upper", "lower"),
    ),
    _points(
        "eight-gaussians",
        "Eight Gaussians on a circle, 2-D",
        "Means on a circle of radius sqrt(8), standard deviation sqrt(1/8), equal weights.",
        _FFJORD,
        labels=tuple("01234567"),
    ),
    _points(
        "checkerboard",
        "A checkerboard, 2-D",
        "Uniform on the eight dark squares of side 2 of a board from -4 to 4. Its density has edges.",
        _FFJORD,
    ),
    _points(
        "spirals",
        "Two spirals, 2-D",
        "Radius pi s at 1.5 s turns, s the square root of a uniform number, and its mirror image through the origin; "
        "plus normal noise of standard deviation 0.1. Without the uniform noise of the original, so that the density "
        "is known.",
        _FFJORD,
        labels=("first", "second"),
    ),
    _points(
        "pinwheel",
        "A pinwheel of five blades, 2-D",
        "Five normal distributions, at radius 2 with standard deviations 0.6 outwards and 0.2 across, each point "
        "turned by 0.1 turns for each unit of its distance from the origin: by the distance, not by the outward "
        "coordinate as in the original, so that the density is known.",
        "after Johnson et al., Composing graphical models with neural networks, arXiv 1603.06277",
        labels=tuple("01234"),
    ),
    _points(
        "smiley",
        "A smiley face, 2-D",
        "Eyes at (-1.5, 2.5) and (1.5, 2.5), and the mouth (2 cos t, -sin t), t uniform from 0 to pi, a third of the "
        "points each; plus normal noise of standard deviation 0.2.",
        "after the lecture on flow models of CS294-158, Deep Unsupervised Learning, University of California, Berkeley",
        labels=("left eye", "right eye", "mouth"),
    ),
    _points(
        "rings",
        "Four rings, 2-D",
        "Circles of radius 0.75, 1.5, 2.25 and 3 with equal weights, plus normal noise of standard deviation 0.24.",
        _FFJORD,
        labels=tuple("0123"),
    ),
    _points(
        "mixture-1d",
        "Three Gaussians on a line, 1-D",
        "Weights 0.3, 0.5, 0.2; means -2, 0.5, 3; standard deviations 0.5, 0.3, 0.8.",
        "flowzoo",
        dims=1,
        labels=("left", "middle", "right"),
    ),
    _points(
        "claw-1d",
        "The claw, 1-D",
        "Half a standard normal distribution, and five of standard deviation 0.1 at -1, -0.5, 0, 0.5, 1.",
        f"density 10 of {_CURVES_1992}",
        dims=1,
    ),
    _points(
        "comb-1d",
        "The smooth comb, 1-D",
        "Six normal distributions, each half as wide and half as likely as the one before.",
        f"density 14 of {_CURVES_1992}",
        dims=1,
    ),
)
"""All of them, those in the plane first."""
