"""Built-in data sets whose pixels fit in memory and whose digests are on record."""

from __future__ import annotations

from flowzoo.data.api import ROOT_PLACEHOLDER, Dataset, Split

__all__ = ["SMALL"]

_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_ALL_IDX = (*_IDX_FILES["train"], *_IDX_FILES["test"])
_DEBIAN_FASHION = "/usr/share/datasets/fashion-mnist"


def _under(folder: str, names: tuple[str, ...], suffix: str = "") -> tuple[str, ...]:
    return tuple(f"{folder}/{name}{suffix}" for name in names)


def _train_first(folder: str) -> tuple[str, ...]:
    """All four files, as torchvision demands them, the training images first."""
    return _under(folder, _ALL_IDX)


def _test_first(folder: str) -> tuple[str, ...]:
    return _under(folder, (*_IDX_FILES["test"], *_IDX_FILES["train"]))


def _torchvision(name: str) -> str:
    """The command that downloads a set below the data root."""
    program = f"import sys, torchvision; torchvision.datasets.{name}(sys.argv[1], download=True)"
    return f'python -c "{program}" {ROOT_PLACEHOLDER}'


_MNIST_TRAIN = (_train_first("MNIST/raw"),)

MNIST = Dataset(
    id="mnist",
    title="MNIST handwritten digits, 28x28, grey",
    release="the original four idx files of 1998, original order",
    preprocessing="mnist-28-v1",
    preprocessing_note="None: the 28x28 uint8 images as released, not padded.",
    image_shape=(1, 28, 28),
    label_names=tuple("0123456789"),
    splits={
        "train": Split(
            description="the first 50,000 training images",
            size=50_000,
            sha256="c80ceb24eedca80f31cfca280b8fb911cbb41b9990f998bebd40e26b1ab6d0f8",
            alternatives=_MNIST_TRAIN,
        ),
        "valid": Split(
            description="the last 10,000 training images",
            size=10_000,
            sha256="2b079632b0defaf508a5ebf8c4ac1e18ce15c8b337da087e9c3e1c84c618d244",
            alternatives=_MNIST_TRAIN,
        ),
        "test": Split(
            description="the 10,000 test images, bundled with flowzoo",
            size=10_000,
            sha256="6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        ),
    },
    reader="flowzoo.data.readers.idx:read",
    terms="CC BY-SA 3.0",
    attribution=(
        "Yann LeCun and Corinna Cortes; LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied "
        "to document recognition, 1998"
    ),
    how_to_get=(
        f"{_torchvision('MNIST')}\n"
        "Or put the four uncompressed idx files of the MNIST database into MNIST/raw below the data root."
    ),
    md5={
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    options={"valid": 10_000},
)

_FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
_FASHION_LABELS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_FASHION_TRAIN = (
    _train_first("FashionMNIST/raw"),
    _under(_DEBIAN_FASHION, _IDX_FILES["train"], ".gz"),
    _under(_DEBIAN_FASHION, _IDX_FILES["train"][:1], ".gz"),
)

FASHION_MNIST = Dataset(
    id="fashion-mnist",
    title="Fashion-MNIST articles of clothing, 28x28, grey",
    release="the four idx files of zalandoresearch/fashion-mnist",
    preprocessing="fashion-mnist-28-v1",
    preprocessing_note="None: the 28x28 uint8 images as released, not padded.",
    image_shape=(1, 28, 28),
    label_names=_FASHION_LABELS,
    splits={
        "train": Split(
            description="the first 50,000 training images",
            size=50_000,
            sha256="0a8ba65008484d4904cd260c7f0385a17a7468ab1df51c36368300fa206ac2c8",
            alternatives=_FASHION_TRAIN,
        ),
        "valid": Split(
            description="the last 10,000 training images",
            size=10_000,
            sha256="36c6e3dcb65f0d5f66123bdf3a6fa7839bb1198f24efa344724200bc92c0bbf0",
            alternatives=_FASHION_TRAIN,
        ),
        "test": Split(
            description="the 10,000 test images",
            size=10_000,
            sha256="c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            alternatives=(
                _test_first("FashionMNIST/raw"),
                _under(_DEBIAN_FASHION, _IDX_FILES["test"], ".gz"),
                _under(_DEBIAN_FASHION, _IDX_FILES["test"][:1], ".gz"),
            ),
        ),
    },
    reader="flowzoo.data.readers.idx:read",
    terms="MIT",
    attribution="Zalando SE; Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv 1708.07747",
    how_to_get=(
        f"{_torchvision('FashionMNIST')}\n"
        "Or, on Debian and Ubuntu, install the package dataset-fashion-mnist."
    ),
    md5={
        **{f"FashionMNIST/raw/{name}": md5 for name, md5 in _FASHION_MD5.items()},
        **{f"{_DEBIAN_FASHION}/{name}.gz": md5 for name, md5 in _FASHION_MD5.items()},
    },
    options={"valid": 10_000},
)

_CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_CIFAR_LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR_NAMES = tuple(_CIFAR_MD5)
_CIFAR_TRAIN = (
    _under("cifar-10-batches-py", _CIFAR_NAMES[:5]),
    _under("cifar-10-batches-bin", _CIFAR_NAMES[:5], ".bin"),
)

CIFAR10 = Dataset(
    id="cifar10",
    title="CIFAR-10 natural images, 32x32, RGB",
    release="the Python release, or the binary one: the same pixels",
    preprocessing="cifar10-32-v1",
    preprocessing_note="None: the 32x32 uint8 images as released.",
    image_shape=(3, 32, 32),
    label_names=_CIFAR_LABELS,
    splits={
        "train": Split(
            description="the first 45,000 training images",
            size=45_000,
            sha256="6b9c6197739b7ba5a3ab8c4dd670c04bb0a2c62c32b02b2799790c65ba29caf5",
            alternatives=_CIFAR_TRAIN,
        ),
        "valid": Split(
            description="the last 5,000 training images",
            size=5_000,
            sha256="1c0b2f1fb423ffccbaba48248659614eba12d191d853895b01dc9b9d8922fded",
            alternatives=_CIFAR_TRAIN,
        ),
        "test": Split(
            description="the 10,000 test images",
            size=10_000,
            sha256="177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            alternatives=(
                _under("cifar-10-batches-py", _CIFAR_NAMES[5:]),
                _under("cifar-10-batches-bin", _CIFAR_NAMES[5:], ".bin"),
            ),
        ),
    },
    reader="flowzoo.data.readers.cifar10:read",
    terms="no stated license; research use is customary",
    attribution="Alex Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    how_to_get=(
        f"{_torchvision('CIFAR10')}\n"
        "Or unpack cifar-10-python.tar.gz or cifar-10-binary.tar.gz from the CIFAR page "
        "of the University of Toronto below the data root."
    ),
    md5={f"cifar-10-batches-py/{name}": md5 for name, md5 in _CIFAR_MD5.items()},
    options={"valid": 5_000},
)

_HALF_FILE = (("celeba64-half/images.npy",),)

CELEBA64_HALF = Dataset(
    id="celeba64-half",
    title="10,000 CelebA faces, 64x64, RGB, from a half-resolution copy",
    release="aligned CelebA, ids 1 to 10,000, half resolution (89x109), JPEG of quality about 75",
    preprocessing="celeba64-half-v1",
    preprocessing_note=(
        "Central 74x74 of the 89x109 copy (148x148 of the original), PIL bilinear to 64x64, uint8. "
        "Smoother than CelebA proper: figures measured on it cannot be compared with any published one."
    ),
    image_shape=(3, 64, 64),
    splits={
        "train": Split(
            description="ids 1 to 9,000",
            size=9_000,
            sha256="2f6179f51a479fe9747391e515a806eb62d1a28263b14e72336f889e5172db4d",
            alternatives=_HALF_FILE,
        ),
        "valid": Split(
            description="ids 9,001 to 9,500",
            size=500,
            sha256="278640f8abf95f0629799cb8289dfba04b95e988d3e4dde5a6d72a9f9dcf91ab",
            alternatives=_HALF_FILE,
        ),
        "test": Split(
            description="ids 9,501 to 10,000",
            size=500,
            sha256="f28940fe8ac9d5672a35e13a3e24ecc8c36e867d9e83d555914b8c57a0823847",
            alternatives=_HALF_FILE,
        ),
    },
    reader="flowzoo.data.readers.npy:read_ranges",
    terms="CelebA: non-commercial research only; the images may not be redistributed",
    attribution="Liu, Luo, Wang and Tang, Deep learning face attributes in the wild, ICCV 2015",
    how_to_get=(
        "this copy is not published; celeba64, from the official aligned images, is the set to use instead. "
        "Whoever has the copy puts its uint8 array (10000, 64, 64, 3) at celeba64-half/images.npy."
    ),
    options={"ranges": {"train": (0, 9_000), "valid": (9_000, 9_500), "test": (9_500, 10_000)}},
)

SMALL: tuple[Dataset, ...] = (MNIST, FASHION_MNIST, CIFAR10, CELEBA64_HALF)
