"""Digits, MNIST files, and turning."""

import gzip
import io
import os
import struct
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.transform import rotate as skimage_rotate

from eqreg import C8, rotate
from eqreg.data import _arrays, digits, mnist, turn
from eqreg.data.digits import read_idx
from eqreg.data.syndeeplesion import read_masks

REAL = Path(
    os.environ.get("EQREG_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
).resolve()
needs_real = pytest.mark.skipif(
    not (REAL / "MNIST").is_dir(), reason="set EQREG_DATA to a folder that holds MNIST"
)

PIXELS = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
CLASSES = np.array([0, 0, 1, 1, 2, 2], dtype=np.uint8)


def idx(array, magic=None):
    head = struct.pack(f">{1 + array.ndim}I", magic or 2048 + array.ndim, *array.shape)
    return head + array.tobytes()


def write_idx(folder, images=PIXELS, labels=CLASSES, packed=False, dot="-"):
    folder.mkdir(exist_ok=True)
    for split in ("train", "t10k"):
        for array, kind in ((images, "images{}idx3-ubyte"), (labels, "labels{}idx1-ubyte")):
            path = folder / f"{split}-{kind.format(dot)}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


# ---- scikit-learn's digits


def test_digits_are_split_without_common_images():
    parts = {split: digits(split) for split in ("train", "val", "test")}
    assert [len(part.labels) for part in parts.values()] == [1000, 300, 497]
    for images, labels in parts.values():
        assert images.shape[1:] == (1, 8, 8) and images.dtype == torch.float32
        assert images.min() == 0 and images.max() == 1
        assert labels.dtype == torch.int64 and labels.unique().tolist() == list(range(10))
        assert len(images) == len(labels)
    for a, b in combinations(parts.values(), 2):
        assert (a.images.flatten(1)[:, None] != b.images.flatten(1)[None]).any(-1).all()
    again = digits("train")
    assert torch.equal(parts["train"].images, again.images)


def test_a_canvas_has_room_to_turn():
    small, large = digits("val").images, digits("val", size=16).images
    assert large.shape == (300, 1, 16, 16)
    inside = large[..., 3:-3, 3:-3]  # 10 = 16 - 2 * 3 pixels, and 10 * sqrt(2) < 16
    assert large.count_nonzero() == inside.count_nonzero()
    assert torch.allclose(inside, F.interpolate(small, (10, 10), mode="bilinear"))
    lost = (turn(large, 45).sum((1, 2, 3)) / large.sum((1, 2, 3)) - 1).abs()
    assert lost.max() < 0.04
    assert digits("val", size=13).images.shape[-1] == 13


def test_digits_say_what_they_expect():
    with pytest.raises(ValueError, match=r"one of \['test', 'train', 'val'\], got 'dev'"):
        digits("dev")
    with pytest.raises(ValueError, match="of 10 pixels holds a square of 6, expected at least 8"):
        digits("val", size=10)


# ---- MNIST files


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_mnist_reads_idx(tmp_path, packed, dot):
    folder = write_idx(tmp_path / "MNIST", packed=packed, dot=dot)
    images, labels = mnist("train", folder, seed=None)
    assert torch.equal(images, torch.from_numpy(PIXELS)[:, None].float() / 255)
    assert labels.tolist() == CLASSES.tolist() and labels.dtype == torch.int64


def test_mnist_reads_the_folder_of_torchvision_and_npz(tmp_path):
    (tmp_path / "a").mkdir()
    write_idx(tmp_path / "a" / "raw")
    path = write_npz(
        tmp_path / "mnist.npz",
        x_train=PIXELS,
        y_train=CLASSES,
        x_test=PIXELS[:2],
        y_test=CLASSES[:2],
    )
    images = mnist("train", tmp_path / "a", seed=None).images
    for root in (path, tmp_path):
        assert torch.equal(mnist("train", root, seed=None).images, images)
    assert len(mnist("test", path).labels) == 2


def test_mnist_shuffles_with_its_seed_and_keeps_pairs(tmp_path):
    folder = write_idx(tmp_path / "MNIST")
    a, b, c = (mnist("train", folder, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    assert a.labels.tolist() != sorted(CLASSES.tolist()) and sorted(a.labels) == sorted(c.labels)
    for image, label in zip(*c, strict=True):
        # The first pixel of image i is 20 i, and its class i // 2.
        assert int(label) == round(float(image[0, 0, 0]) * 255) // 20 // 2


def test_mnist_is_found_by_the_environment(tmp_path, monkeypatch):
    write_idx(tmp_path / "MNIST")
    monkeypatch.setenv("EQREG_DATA", str(tmp_path))
    assert len(mnist("test").labels) == 6
    monkeypatch.delenv("EQREG_DATA")
    with pytest.raises(FileNotFoundError, match="give root=, or set EQREG_DATA"):
        mnist("test")


def test_mnist_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['test', 'train'\], got 'val'"):
        mnist("val", tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a file or folder, found no .*nowhere"):
        mnist("train", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte .*found nothing"):
        mnist("train", tmp_path)
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="found t10k-images-idx3-ubyte, t10k-labels"):
        mnist("train", tmp_path)


def test_mnist_names_counts_that_differ(tmp_path):
    folder = write_idx(tmp_path / "MNIST", labels=CLASSES[:4])
    with pytest.raises(
        ValueError, match="got 6 images and 4 labels in train-images-idx3-ubyte and"
    ):
        mnist("train", folder)
    path = write_npz(tmp_path / "m.npz", x_train=PIXELS[:5], y_train=CLASSES)
    with pytest.raises(ValueError, match=r"got 5 images and 6 labels in m.npz"):
        mnist("train", path)


def test_mnist_names_what_is_wrong_with_an_npz(tmp_path):
    path = write_npz(tmp_path / "m.npz", x_train=PIXELS, labels=CLASSES)
    with pytest.raises(ValueError, match="arrays x_train and y_train .* found x_train, labels"):
        mnist("train", path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="m.npz is truncated or no npz file"):
        mnist("train", path)
    path.write_bytes(idx(PIXELS))
    with pytest.raises(ValueError, match="m.npz is truncated or no npz file"):
        mnist("train", path)
    write_npz(path, x_train=PIXELS.astype(float), y_train=CLASSES)
    with pytest.raises(ValueError, match=r"expected uint8 images .*, got float64 \(6, 4, 5\)"):
        mnist("train", path)


def test_read_idx_names_magic_number_and_lengths(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx(CLASSES))
    with pytest.raises(ValueError, match="magic number 2051 .*3 dimensions.* got 2049"):
        read_idx(path, 3)
    path.write_bytes(idx(PIXELS)[:-7])
    with pytest.raises(ValueError, match="is truncated: 6 x 4 x 5 needs 120 bytes .*, got 113"):
        read_idx(path, 3)
    path.write_bytes(idx(PIXELS) + b"\0")
    with pytest.raises(ValueError, match="is too long: .* needs 120 bytes .*, got 121"):
        read_idx(path, 3)
    path.write_bytes(idx(PIXELS)[:10])
    with pytest.raises(ValueError, match="is truncated: expected a head of 16 bytes, got 10"):
        read_idx(path, 3)
    packed = tmp_path / "file.gz"
    packed.write_bytes(gzip.compress(idx(PIXELS))[:-12])
    with pytest.raises(ValueError, match="expected a complete gzip file"):
        read_idx(packed, 3)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent.gz", 3)


@needs_real
def test_published_mnist():
    images, labels = mnist("test", REAL / "MNIST")
    assert images.shape == (10_000, 1, 28, 28)
    # The counts of the published test set, and the mean that everybody normalises by.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(labels).tolist() == counts
    assert abs(float(images.mean()) - 0.1325) < 1e-3
    assert labels[:100].unique().numel() == 10  # the file is sorted, the result is not


# ---- turning


@pytest.fixture
def smooth():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 1, 6, 6, generator=generator)
    return F.pad(F.interpolate(noise, (18, 18), mode="bicubic").clamp(0, 1), [4] * 4)


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 133.7, 180.0, -60.0])
def test_turn_agrees_with_scikit_image(smooth, angle):
    ours = turn(smooth, angle, factor=1)
    for image, turned in zip(smooth, ours, strict=True):
        theirs = skimage_rotate(image[0].double().numpy(), angle, order=1, mode="constant")
        assert np.abs(turned[0].numpy() - theirs).max() < 1e-4


def test_turn_agrees_with_rotate_on_the_elements_of_a_group(smooth):
    for k in range(8):
        assert torch.allclose(turn(smooth, 45.0 * k, factor=1), rotate(smooth, k, C8), atol=1e-5)


def test_turn_takes_an_angle_for_each_image(smooth):
    angles = torch.tensor([10.0, 0.0, 200.0])
    together = turn(smooth, angles)
    for i in range(3):
        assert torch.allclose(together[i], turn(smooth[i : i + 1], float(angles[i]))[0], atol=1e-6)


@pytest.mark.parametrize("size", [26, 25])
def test_turn_commutes_with_quarter_turns(smooth, size):
    x = smooth[..., :size, :size]
    angles = torch.tensor([0.0, 31.0, 77.0])
    for k in (1, 3):
        a, b = turn(rotate(x, k), angles), rotate(turn(x, angles), k)
        assert torch.allclose(a, b, atol=1e-5)
        assert torch.allclose(turn(x, angles + 90 * k), b, atol=1e-4)


def test_turn_of_a_rectangle_keeps_distances():
    # A dot three pixels to the right of the centre moves up by a quarter turn.
    x = torch.zeros(1, 1, 9, 15)
    x[0, 0, 4, 10] = 1
    turned = turn(x, 90, factor=1)
    assert torch.isclose(turned[0, 0, 1, 7], torch.tensor(1.0), atol=1e-5)


def test_the_detour_is_more_exact_than_interpolating_once(smooth):
    once, detour = (turn(turn(smooth, 45, factor=f), -45, factor=f) for f in (1, 3))
    assert (detour - smooth).square().sum() < (once - smooth).square().sum()


def test_turn_says_what_it_expects(smooth):
    with pytest.raises(ValueError, match=r"expected floating .* got torch.uint8 \(3, 1, 26, 26\)"):
        turn((255 * smooth).byte(), 10)
    with pytest.raises(ValueError, match=r"one angle or 3, .* got shape \(2,\)"):
        turn(smooth, torch.zeros(2))
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        turn(smooth, 10, factor=0)


# ---- files that would take more memory than they announce


def test_a_gzip_file_that_unpacks_to_much_more_is_refused(tmp_path, monkeypatch):
    """Only what the head announces is unpacked, and not more than arrays of this kind need."""
    monkeypatch.setattr(_arrays, "LARGEST", 1000)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((3, 4, 5), np.uint8)) + bytes(10**7)))
    with pytest.raises(ValueError, match=r"a\.gz is too long: 3 x 4 x 5 needs 60 bytes .*, got 61"):
        read_idx(path, 3)
    path.write_bytes(gzip.compress(idx(np.zeros((30, 40, 50), np.uint8))))
    with pytest.raises(ValueError, match=r"a\.gz unpacks to 0 MB, expected at most 0 MB"):
        read_idx(path, 3)


def test_an_npz_file_that_unpacks_to_much_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_arrays, "LARGEST", 1 << 20)
    np.savez_compressed(
        tmp_path / "a.npz", x_test=np.zeros((40, 1000, 1000), np.uint8), y_test=np.zeros(40)
    )
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    with pytest.raises(ValueError, match="x_test unpacks to 40 MB, expected at most 1 MB"):
        mnist("test", tmp_path / "a.npz")


def test_an_array_that_announces_more_than_it_holds_is_refused(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_test.npy", head.getvalue())
    with pytest.raises(
        ValueError, match=r"x_test announces \(1000000, 1000000\) uint8, more than its"
    ):
        mnist("test", tmp_path / "a.npz")
    (tmp_path / "b.npy").write_bytes(head.getvalue())
    with pytest.raises(ValueError, match="could not read .*b.npy"):
        read_masks(tmp_path / "b.npy")
