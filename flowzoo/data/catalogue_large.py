"""Built-in data sets that users must bring themselves: CelebA, downsampled ImageNet, LSUN."""

from __future__ import annotations

from flowzoo.data.api import Dataset, Split

__all__ = ["LARGE"]

_IMAGENET_TERMS = "ImageNet: non-commercial research and education only; access is granted by image-net.org"
_IMAGENET_HELD_OUT = 10_000
_CELEBA_FILES = (("celeba/img_align_celeba", "celeba/list_eval_partition.txt"),)

CELEBA64 = Dataset(
    id="celeba64",
    title="CelebA faces, 64x64, RGB",
    release="img_align_celeba, the official aligned and cropped JPEGs (178x218)",
    preprocessing="celeba-crop148-bilinear64-uint8-v1",
    preprocessing_note=(
        "Rows 40 to 187 and columns 15 to 162 (148x148), resized to 64x64 by PIL's antialiased bilinear "
        "filter, which rounds to uint8. RealNVP's published figure is for unrounded images, so it is not "
        "exactly comparable."
    ),
    image_shape=(3, 64, 64),
    splits={
        "train": Split(description="official partition 0", size=162_770, alternatives=_CELEBA_FILES),
        "valid": Split(description="official partition 1", size=19_867, alternatives=_CELEBA_FILES),
        "test": Split(description="official partition 2", size=19_962, alternatives=_CELEBA_FILES),
    },
    reader="flowzoo.data.readers.folder:read_celeba",
    terms="non-commercial research only; the images may not be redistributed",
    attribution="Liu, Luo, Wang and Tang, Deep learning face attributes in the wild, ICCV 2015",
    how_to_get=(
        "from the CelebA page of the Multimedia Laboratory, The Chinese University of Hong Kong: unpack "
        "img_align_celeba.zip into celeba/ and put list_eval_partition.txt beside it (torchvision's "
        "layout). Then run 'flowzoo data prepare celeba64' once, so that training need not decode JPEGs."
    ),
    md5={"celeba/list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668"},
    options={"crop": "celeba", "size": 64, "channels": 3},
)


def _imagenet_splits(
    train: tuple[tuple[str, ...], ...],
    test: tuple[tuple[str, ...], ...],
    total: int | None,
    tested: int | None,
) -> dict[str, Split]:
    held_out = f"{_IMAGENET_HELD_OUT:,}"
    return {
        "train": Split(
            description=f"the release's training images but the last {held_out}",
            size=None if total is None else total - _IMAGENET_HELD_OUT,
            alternatives=train,
        ),
        "valid": Split(
            description=f"the last {held_out} of the release's training images, in its order",
            size=_IMAGENET_HELD_OUT,
            alternatives=train,
        ),
        "test": Split(
            description="the release's validation images, on which all published figures are measured",
            size=tested,
            alternatives=test,
        ),
    }


def _oord(size: int) -> Dataset:
    name = f"imagenet{size}-oord"
    names = {part: f"{name}/{part}_{size}x{size}" for part in ("train", "valid")}
    alternatives = {part: ((f"{path}.npy",), (f"{path}.npz",), (path,)) for part, path in names.items()}
    return Dataset(
        id=name,
        title=f"ImageNet downsampled to {size}x{size}, RGB, the PixelRNN release",
        release="van den Oord, Kalchbrenner and Kavukcuoglu 2016 (withdrawn since)",
        preprocessing=f"imagenet{size}-oord-v1",
        preprocessing_note=(
            f"None: the {size}x{size} uint8 images as released; PNG files in order of their names. Not the "
            f"same pixels as imagenet{size}-chrabaszcz: figures on the two are not comparable."
        ),
        image_shape=(3, size, size),
        splits=_imagenet_splits(alternatives["train"], alternatives["valid"], None, None),
        reader="flowzoo.data.readers.imagenet:read",
        terms=_IMAGENET_TERMS,
        attribution="van den Oord et al., Pixel recurrent neural networks, arXiv 1601.06759",
        how_to_get=(
            f"image-net.org no longer offers it. Who has it puts train_{size}x{size} and "
            f"valid_{size}x{size} into {name}/: as .npy or .npz (one uint8 array, N x {size} x {size} x 3 "
            f"or N x 3 x {size} x {size}), or as the folders of PNG files that the release unpacks to."
        ),
        options={
            "size": size,
            "arrays": ("arr_0", "data", "images"),
            "flat": False,
            "valid": _IMAGENET_HELD_OUT,
        },
    )


def _chrabaszcz(size: int) -> Dataset:
    name = f"imagenet{size}-chrabaszcz"
    batches = tuple(f"{name}/train_data_batch_{number}" for number in range(1, 11))
    return Dataset(
        id=name,
        title=f"ImageNet downsampled to {size}x{size}, RGB, the image-net.org release",
        release="Chrabaszcz, Loshchilov and Hutter 2017, box filter",
        preprocessing=f"imagenet{size}-chrabaszcz-v1",
        preprocessing_note=(
            f"None: the {size}x{size} uint8 images as released, batches 1 to 10 in order. Not the same "
            f"pixels as imagenet{size}-oord: figures on the two are not comparable."
        ),
        image_shape=(3, size, size),
        label_names=tuple(map(str, range(1, 1001))),
        splits=_imagenet_splits(
            (tuple(f"{batch}.npz" for batch in batches), batches),
            ((f"{name}/val_data.npz",), (f"{name}/val_data",)),
            1_281_167,
            50_000,
        ),
        reader="flowzoo.data.readers.imagenet:read",
        terms=_IMAGENET_TERMS,
        attribution="Chrabaszcz, Loshchilov and Hutter, A downsampled variant of ImageNet, arXiv 1707.08819",
        how_to_get=(
            f"from image-net.org's download page, after its registration: unpack the {size}x{size} training "
            "and validation archives (npz, or the pickled batches, which are read without unpickling) into "
            f"{name}/. Then run 'flowzoo data prepare {name}' once, so that training need not hold it in "
            "memory."
        ),
        options={"size": size, "arrays": ("data",), "flat": True, "valid": _IMAGENET_HELD_OUT},
    )


_LSUN_HELD_OUT = 3_000


def _lsun(category: str, folder: str) -> Dataset:
    train, test = ((f"lsun/{folder}_{part}",) for part in ("train", "val"))
    return Dataset(
        id=f"lsun-{category}64",
        title=f"LSUN {folder}, 64x64, RGB",
        release=f"LSUN 2015, category {folder}, exported to image files",
        preprocessing="square-bilinear64-uint8-v1",
        preprocessing_note=(
            "The central square of each image, resized to 64x64 by PIL's antialiased bilinear filter, "
            "which rounds to uint8; files in order of their paths. Published figures use other crops "
            "(RealNVP: random ones of images reduced to 96 pixels) on the same 300 images, so they are not "
            "exactly comparable."
        ),
        image_shape=(3, 64, 64),
        splits={
            "train": Split(
                description=f"the training images but the last {_LSUN_HELD_OUT:,}", alternatives=(train,)
            ),
            "valid": Split(
                description=f"the last {_LSUN_HELD_OUT:,} training images, in order of their paths",
                size=_LSUN_HELD_OUT,
                alternatives=(train,),
            ),
            "test": Split(description="the 300 validation images", size=300, alternatives=(test,)),
        },
        reader="flowzoo.data.readers.folder:read_split_folders",
        terms="no stated license for the images; research use is customary",
        attribution="Yu, Seff, Zhang, Song, Funkhouser and Xiao, LSUN, arXiv 1506.03365",
        how_to_get=(
            f"download {folder}_train and {folder}_val with the scripts of the LSUN authors, export the "
            f"databases to image files and put them into lsun/{folder}_train/ and lsun/{folder}_val/ "
            f"(subfolders are fine). Then run 'flowzoo data prepare lsun-{category}64' once."
        ),
        options={"crop": "square", "size": 64, "channels": 3, "valid": _LSUN_HELD_OUT},
    )


LARGE: tuple[Dataset, ...] = (
    CELEBA64,
    _oord(32),
    _oord(64),
    _chrabaszcz(32),
    _chrabaszcz(64),
    _lsun("bedroom", "bedroom"),
    _lsun("tower", "tower"),
    _lsun("church", "church_outdoor"),
)
