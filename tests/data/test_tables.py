"""Tables of real numbers: how a CSV file is written is found out, what is no number is named by line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowzoo.data import SPLITS, VectorSet, get_dataset
from flowzoo.errors import DataUnavailable, InputError, IntegrityError

TABLES = {
    "header": "a,b\n1,2\n3.5,-4e1\n",
    "no header": "1,2\n3.5,-4e1\n",
    "semicolons": "a;b\n1;2\n3.5;-4e1\n",
    "tabs": "1\t2\n3.5\t-4e1\n",
    "spaces": "a b\n1 2\n3.5 -4e1\n",
    "quotes, a mark and blank lines": '\ufeff"a", "b"\r\n\r\n"1", 2\r\n3.5, "-4e1"\r\n\r\n',
}


def load(path: Path, text: str, query: str = "?split=all", split: str = "train") -> VectorSet:
    path.write_bytes(text.encode())
    found = get_dataset(f"csv:{path}{query}").load(split)
    assert isinstance(found, VectorSet)
    return found


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES.keys())
def test_a_table_is_read_however_it_is_written(tmp_path: Path, text: str) -> None:
    found = load(tmp_path / "t.csv", text)
    assert found.vectors.tolist() == [[1.0, 2.0], [3.5, -40.0]]
    assert found.vectors.dtype == torch.float32
    assert found.columns == (("a", "b") if "a" in text else ("0", "1"))


def test_one_column_and_what_the_name_says(tmp_path: Path) -> None:
    assert load(tmp_path / "t.csv", "x\n1\n2\n").vectors.tolist() == [[1.0], [2.0]]
    assert load(tmp_path / "t.csv", "2019,2020\n1,2\n", "?header=yes&split=all").columns == ("2019", "2020")
    assert load(tmp_path / "t.csv", "a|b\n1|2\n", "?delimiter=bar&columns=b&split=all").vectors.tolist() == [
        [2.0]
    ]


def test_a_column_of_classes_gives_labels(tmp_path: Path) -> None:
    found = load(tmp_path / "t.csv", "x,kind\n1,rose\n2,iris\n3,rose\n", "?label=kind&split=all")
    assert (found.label_names, found.needed_labels().tolist()) == (("iris", "rose"), [1, 0, 1])
    found = load(tmp_path / "t.csv", "1,10\n2,9\n", "?label=1&split=all")
    assert (found.label_names, found.needed_labels().tolist()) == (("9", "10"), [1, 0])


@pytest.mark.parametrize(
    ("text", "query", "match"),
    [
        ("a,b\n1,2\n3,x\n", "", r"line 3, column 2 \('b'\): found 'x'"),
        ("a,b\n1,2\n3,\n", "", r"line 3, column 2 \('b'\): found an empty cell"),
        ("a,b\n1,nan\n", "", r"line 2, column 2 \('b'\): found nan"),
        ("a,b\n1,2\n-inf,1\n", "", r"line 3, column 1 \('a'\): found -inf"),
        ("a,b\n1e60,2\n", "", r"line 2, column 1 \('a'\): found 1e60"),
        ("a,b\n1,2\n3\n", "", "line 3: found 1 columns, expected 2"),
        ("a,b\n1,2\n\n3,4,5\n", "", "line 4: found 3 columns, expected 2"),
        ("a,b\n", "", "no rows below its header"),
        ("", "", "empty"),
        ("\0\0", "", "not a text file"),
        ("a,a\n1,2\n", "", "two columns 'a'"),
        ("a,b\n1,2\n", "&columns=c", "no column 'c'"),
        ("a,b\n1,2\n", "&label=c", "no column 'c'"),
        ("a,b\n1,2\n", "&columns=a,b,a", "column 'a' twice"),
        ("a\nx\n", "&label=a", "no column of numbers"),
        ("a,b\n1,2\n", "&delimiter=dot", "delimiter must be"),
        ("a,b\n1,2\n", "&header=perhaps", "header must be"),
        ("a,b\n1,2\n", "&colums=a", "unknown option 'colums'"),
        ('a,b\n1,"2\n', "", "not a table|found"),
    ],
)
def test_what_is_no_table_of_numbers_is_one_line(tmp_path: Path, text: str, query: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load(tmp_path / "t.csv", text, f"?split=all{query}")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="no file"):
        get_dataset(f"csv:{tmp_path / 'none.csv'}")
    with pytest.raises(InputError, match="names no file"):
        get_dataset("csv:")


def test_rows_are_split_by_what_they_hold(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", np.concatenate([values, values[:50]]))
    np.save(tmp_path / "b.npy", values[::-1])
    first, second = (get_dataset(f"numpy:{tmp_path / name}") for name in ("a.npy", "b.npy"))
    parts = {split: {row.tobytes() for row in first.load(split)[:].numpy()} for split in SPLITS}
    assert sum(len(part) for part in parts.values()) == 400
    assert 0.7 < len(parts["train"]) / 400 < 0.9
    for split in SPLITS:
        assert {row.tobytes() for row in second.load(split)[:].numpy()} == parts[split]


def test_an_array_of_floats_is_a_table(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "a.npy", values)
    dataset = get_dataset(f"numpy:{tmp_path / 'a.npy'}?split=all")
    assert (dataset.kind, dataset.dims, dataset.image_shape) == ("vectors", 2, None)
    assert np.array_equal(dataset.load("test")[:].numpy(), values)
    np.save(tmp_path / "b.npy", np.ones(4, dtype=np.float16))
    assert get_dataset(f"numpy:{tmp_path / 'b.npy'}?split=all").load("train").data_shape == (1,)
    values[1, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match="row 1, column 1, counted from 0: found nan"):
        dataset.load("train")
    np.save(tmp_path / "f.npy", np.asfortranarray(np.arange(6.0).reshape(3, 2)))
    found = get_dataset(f"numpy:{tmp_path / 'f.npy'}?split=all").load("train")
    assert found[:].tolist() == [[0, 1], [2, 3], [4, 5]]
    (tmp_path / "f.npy").write_bytes((tmp_path / "f.npy").read_bytes()[:-8])
    with pytest.raises(IntegrityError, match="claims 48 bytes of numbers, 40 follow"):
        get_dataset(f"numpy:{tmp_path / 'f.npy'}?split=all").load("train")
    with pytest.raises(InputError, match="unknown option 'layout'"):
        get_dataset(f"numpy:{tmp_path / 'a.npy'}?layout=nhwc")


def test_mean_and_std_are_of_the_train_split(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(3, 2, size=(300, 2))
    np.save(tmp_path / "a.npy", values)
    dataset = get_dataset(f"numpy:{tmp_path / 'a.npy'}")
    train, valid = dataset.load("train"), dataset.load("valid")
    assert isinstance(valid, VectorSet)
    torch.testing.assert_close(valid.mean, train[:].mean(0))
    torch.testing.assert_close(valid.std, train[:].std(0, correction=0))
    assert not torch.allclose(valid.vectors.mean(0), valid.mean)


def test_a_constant_column_has_no_density(tmp_path: Path) -> None:
    found = load(tmp_path / "t.csv", "a,b\n1,2\n3,2\n")
    with pytest.raises(InputError, match=r"Column 1 \('b'\) .* is constant"):
        _ = found.std


def test_vectors_must_be_finite_numbers_in_rows() -> None:
    with pytest.raises(InputError, match="Row 1, column 0 of 'custom' is inf"):
        VectorSet(torch.tensor([[0.0], [torch.inf]]))
    with pytest.raises(InputError, match=r"\(N, D\)"):
        VectorSet(torch.zeros(3))
    with pytest.raises(InputError, match="vectors of 2 numbers, expected images"):
        _ = VectorSet(torch.zeros(1, 2)).image_shape
