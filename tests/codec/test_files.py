"""Files: every image comes back, the bytes are the same however they were computed, damage is noticed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import flowzoo
from flowzoo import engine
from flowzoo.codec import compress_images, decompress_images, integer_model, read_header
from flowzoo.codec.coder import Weigher
from flowzoo.errors import FlowzooError, InputError, IntegrityError
from flowzoo.flow import Flow
from tests.codec.examples import GOLDEN_FILE, golden_flow, golden_images, random_images
from tests.codec.test_integers import in_another_order

pytest.importorskip("constriction", reason="the extra flowzoo[compress]")

ROOT = Path(__file__).parents[2]
FLOW = golden_flow()


def write(images: Tensor, path: Path, *, flow: Flow = FLOW, batch: int = 50, **options: object) -> bytes:
    compress_images(flow, images.split(batch), len(images), path, name="idf-golden", **options)  # type: ignore[arg-type]
    return path.read_bytes()


def read(path: Path, flow: Flow = FLOW, **options: int) -> Tensor:
    with decompress_images(flow, path, **options) as (_, batches):
        return torch.cat(list(batches))


def test_the_golden_file_decodes_to_its_images() -> None:
    assert torch.equal(read(GOLDEN_FILE), golden_images())
    header = read_header(GOLDEN_FILE)
    assert (header.model, header.shape, header.count, header.named) == ("idf-golden", (1, 8, 8), 96, True)
    assert GOLDEN_FILE.stat().st_size <= 20_000


def test_the_golden_images_encode_to_the_golden_file(tmp_path: Path) -> None:
    names = [f"set/{i:03d}" for i in range(96)]
    assert write(golden_images(), tmp_path / "x.flz", names=names) == GOLDEN_FILE.read_bytes()


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (2, 64)])
def test_threads_batch_size_layout_and_engine_change_no_byte(
    tmp_path: Path, threads: int, batch_size: int
) -> None:
    images = golden_images(8)
    expected = write(images, tmp_path / "a.flz")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        layout = images.contiguous(memory_format=torch.channels_last)
        assert write(layout, tmp_path / "b.flz", batch=7, batch_size=batch_size) == expected
        with engine.disabled():
            flow = golden_flow().to(memory_format=torch.channels_last)
            assert write(images, tmp_path / "c.flz", flow=flow, batch_size=batch_size) == expected
        assert torch.equal(read(tmp_path / "a.flz", batch_size=batch_size), images)
    finally:
        torch.set_num_threads(before)


def test_another_instruction_set_changes_no_byte(tmp_path: Path) -> None:
    """Torch's plain kernels and MKL's compatible ones stand for an older processor."""
    program = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from flowzoo.codec import compress_images, decompress_images\n"
        "from tests.codec.examples import GOLDEN_FILE, golden_flow, golden_images\n"
        "assert torch.backends.cpu.get_cpu_capability() == 'DEFAULT'\n"
        "flow, images, out = golden_flow(), golden_images(), Path(sys.argv[1])\n"
        "with decompress_images(flow, GOLDEN_FILE) as (reader, batches):\n"
        "    assert torch.equal(torch.cat(list(batches)), images)\n"
        "    names = reader.names\n"
        "compress_images(flow, [images], 96, out, name='idf-golden', names=names)\n"
        "assert out.read_bytes() == GOLDEN_FILE.read_bytes()\n"
    )
    older = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.flz")],
        cwd=ROOT, env={**os.environ, **older}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_shuffled_order_of_summation_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = golden_images(20)
    expected = write(images, tmp_path / "a.flz")
    monkeypatch.setattr(torch, "matmul", in_another_order)
    assert write(images, tmp_path / "b.flz") == expected
    assert torch.equal(read(tmp_path / "a.flz"), images)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31), count=st.integers(1, 40), low=st.integers(0, 255), span=st.integers(0, 255)
)
def test_any_image_comes_back(tmp_path: Path, seed: int, count: int, low: int, span: int) -> None:
    images = (low + random_images(count, seed).int() % (span + 1)).clamp(max=255).to(torch.uint8)
    write(images, tmp_path / "x.flz")
    assert torch.equal(read(tmp_path / "x.flz"), images)


def test_several_chunks_come_back_and_the_size_is_the_models_bits(tmp_path: Path) -> None:
    images = random_images(600, 3)
    done = compress_images(FLOW, images.split(99), 600, tmp_path / "x.flz", name="idf-golden")
    assert torch.equal(read(tmp_path / "x.flz"), images)
    weigher = Weigher()
    integer_model(FLOW).encode(images.long(), weigher.write)
    ideal = weigher.bits / images.numel()
    assert done.size == (tmp_path / "x.flz").stat().st_size
    assert ideal < done.bits_per_dim < 1.02 * ideal


def test_colour_images_of_fewer_bits_come_back(tmp_path: Path) -> None:
    flow = flowzoo.create("idf-tiny", n_bits=5, couplings=1).eval()
    x = torch.randint(0, 32, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8) << 3
    write(x, tmp_path / "x.flz", flow=flow)
    assert torch.equal(read(tmp_path / "x.flz", flow), x)
    with pytest.raises(InputError, match="low bits"):
        write(x + 1, tmp_path / "y.flz", flow=flow)
    assert not (tmp_path / "y.flz").exists()


def test_a_machine_that_computes_wrongly_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, calls = torch.matmul, [0]

    def faulty(weight: Tensor, columns: Tensor) -> Tensor:
        calls[0] += 1
        return exact(weight, columns) + (2.0**40 if calls[0] == 3 else 0.0)

    monkeypatch.setattr(torch, "matmul", faulty)
    with pytest.raises(IntegrityError, match="did not decode"):
        write(golden_images(8), tmp_path / "x.flz")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_floats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nice models cannot compress"):
        write(golden_images(2), tmp_path / "x.flz", flow=flowzoo.create("nice-tiny"))


def test_images_that_are_fewer_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5 images came where 6"):
        compress_images(FLOW, [golden_images(5)], 6, tmp_path / "x.flz", name="m")
    with pytest.raises(InputError, match="shape"):
        compress_images(FLOW, [golden_images(5)[:, :, :4]], 5, tmp_path / "x.flz", name="m")
    with pytest.raises(InputError, match="no images"):
        compress_images(FLOW, [], 0, tmp_path / "x.flz", name="m")
    assert list(tmp_path.iterdir()) == []


# --- damage ---------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole = write(golden_images(4), tmp_path / "x.flz")
    damaged = tmp_path / "damaged.flz"
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        damaged.write_bytes(content)
        # The last words of a stream have bits that no symbol needs.
        if place < len(whole) - 8:
            with pytest.raises(IntegrityError, match=r"^[^\n]*Nothing was written\.$"):
                read(damaged)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write(golden_images(12), tmp_path / "x.flz", names=[f"n{i}" for i in range(12)])
    cut = tmp_path / "cut.flz"
    for length in [*range(0, 400, 7), len(whole) - 4, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=r"cut off|does not begin"):
            read(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(IntegrityError, match="after its last image"):
        read(cut)


def block(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content + struct.pack("<I", zlib.crc32(content))


def header(**changes: object) -> bytes:
    import json

    honest = {
        "model": "m",
        "weights": read_header(GOLDEN_FILE).weights,
        "shape": [1, 8, 8],
        "count": 3,
        "named": False,
    }
    return b"FLZ1" + struct.pack("<H", 1) + block(json.dumps({**honest, **changes}).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with FLZ1"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "does not begin with FLZ1"),
        (b"FLZ1" + struct.pack("<H", 2) + bytes(50), "codec version 2.*Update flowzoo"),
        (b"FLZ1" + struct.pack("<HI", 1, 2**32 - 1) + bytes(50), "claims 4,294,967,295 bytes"),
        (b"FLZ1" + struct.pack("<H", 1) + block(b"[" * 60000), "header cannot be read"),
        (b"FLZ1" + struct.pack("<H", 1) + block(b"[1]"), "header cannot be read"),
        (header(count=-1), "impossible values"),
        (header(count=True), "impossible values"),
        (header(shape=[1, 8]), "impossible values"),
        (header(model="a\nb"), "impossible values"),
        (header(model="m" * 201), "impossible values"),
        (header(weights="\n"), "impossible values"),
        (header(shape=7), "header cannot be read"),
        (header(extra=1), "header cannot be read"),
        (header(weights="0" * 64), "other weights: m of sha256 000000000000"),
        (header(shape=[1, 8, 2**40]), "claims images of"),
        (header(count=2**60), "cut off in a chunk"),
        (header() + struct.pack("<HII", 4, 0, 0), "claims 4 images where 3 are left"),
        (header() + struct.pack("<HII", 0, 0, 0), "claims 0 images"),
        (header() + struct.pack("<HII", 3, 0, 2**32 - 1), "cut off in a chunk"),
        (header() + struct.pack("<HII", 3, 0, 0), "images 0 to 2 do not have the pixels"),
        (header(named=True) + block(zlib.compress(b"a\nb")), "one name for each image"),
        (header(named=True) + block(zlib.compress(b"a\nb\nb")), "one name for each image"),
        (header(named=True) + block(zlib.compress(b"a\nb\n../c")), "no path below"),
        (header(named=True) + block(zlib.compress(b"a\nb\n/c")), "no path below"),
        (header(named=True) + block(zlib.compress(b"a\nb\nC:c")), "no path below"),
        (header(named=True) + block(zlib.compress(b"a\nb\nnul.x")), "no path below"),
        (header(named=True) + block(zlib.compress(b"a\nb\nc./d")), "no path below"),
        (header(named=True) + block(zlib.compress(b"a\nb\n" + b"n" * 252)), "no path below"),
        (header(named=True) + block(zlib.compress(bytes(10**7))), "one name for each image"),
        (header(named=True) + block(b"nonsense"), "names cannot be read"),
    ],
)
def test_hostile_files_end_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.flz"
    path.write_bytes(content)
    with pytest.raises(FlowzooError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
