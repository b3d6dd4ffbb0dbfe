"""CT slices from files, phantoms, implants, and the published way to judge images."""

import math

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from eqreg.data import _arrays, ct, phantoms, syndeeplesion
from eqreg.data.ct import CTFolder, bundled_ct, read_ct, resize_ct
from eqreg.data.phantoms import REGIONS, phantom
from eqreg.data.syndeeplesion import SynDeepLesion, read_masks
from eqreg.extras import require
from eqreg.physics.ct import (
    MU_WATER,
    by_size,
    hu_to_mu,
    implant,
    implants,
    mar_psnr,
    mar_ssim,
    rmse_hu,
    size_group,
)
from eqreg.physics.ct.evaluate import display
from eqreg.physics.ct.metal import AREAS, PUBLISHED_AREAS, SHAPES


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- slices


@pytest.fixture
def write_dicom(tmp_path):
    pydicom = require("pydicom", extra="tasks")

    def write(values, name="slice.dcm", **tags):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = "1.2.3"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file = pydicom.dataset.Dataset()
        file.file_meta = meta
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        file.Modality = "CT"
        file.Rows, file.Columns = values.shape[-2:]
        if values.ndim == 3:
            file.NumberOfFrames = len(values)
        file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 16, 15
        file.PixelRepresentation = 1
        file.PhotometricInterpretation = "MONOCHROME2"
        file.RescaleSlope, file.RescaleIntercept = "2", "-1024"
        file.PixelData = values.astype(np.int16).tobytes()
        for key, value in tags.items():
            if value is None:
                delattr(file, key)
            else:
                setattr(file, key, value)
        path = tmp_path / name
        file.save_as(path, enforce_file_format=True)
        return path

    return write


VALUES = np.array([[0, 12, 512], [1000, -500, 600]])


def test_dicom_values_become_ct_numbers(write_dicom):
    hu = read_ct(write_dicom(VALUES))
    assert hu.dtype == torch.float32
    # 2 v - 1024, and nothing below air.
    assert hu.tolist() == [[-1000, -1000, 0], [976, -1000, 176]]


def test_padding_becomes_air(write_dicom):
    assert read_ct(write_dicom(VALUES, PixelPaddingValue=1000))[1, 0] == -1000
    padded = write_dicom(VALUES, PixelPaddingValue=1000, PixelPaddingRangeLimit=600)
    assert read_ct(padded).tolist() == [[-1000, -1000, 0], [-1000, -1000, -1000]]


def test_inverted_display_does_not_invert_ct_numbers(write_dicom):
    plain = read_ct(write_dicom(VALUES))
    inverted = read_ct(write_dicom(VALUES, "i.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert torch.equal(plain, inverted)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR"}, "expected modality CT, got MR"),
        ({"RescaleSlope": None}, "expected RescaleSlope, without which"),
        ({"RescaleSlope": "0"}, "a RescaleSlope other than 0"),
        ({"PixelData": b"\0\0"}, "could not read .*slice.dcm"),
        ({"RescaleSlope": "100"}, r"in \[-4096, 32767\] HU in .*slice.dcm, got \[-51024, 98976\]"),
    ],
)
def test_dicom_that_is_no_ct_slice(write_dicom, tags, message):
    with pytest.raises(ValueError, match=message):
        read_ct(write_dicom(VALUES, **tags))


def test_a_volume_is_no_slice(write_dicom):
    with pytest.raises(ValueError, match=r"one grey image, got a file of 2"):
        read_ct(write_dicom(np.stack([VALUES, VALUES])))


def test_png_and_numpy(tmp_path):
    hu = np.array([[-1024, 0, 500]])
    Image.fromarray((hu + 32768).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray((hu + 2000).astype(np.uint16)).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", hu)
    for name, offset in (("a.png", 32768), ("b.png", 2000), ("c.npy", 0)):
        assert read_ct(tmp_path / name, offset=offset).tolist() == [[-1000, 0, 500]]


def test_slices_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(b"no dicom")
    (tmp_path / "bad.png").write_bytes(b"no png")
    np.save(tmp_path / "nan.npy", np.array([[0.0, math.nan]]))
    np.save(tmp_path / "line.npy", np.zeros(4))
    np.save(tmp_path / "object.npy", np.array([{}]))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "eight.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "offset.png")
    (tmp_path / "a.txt").write_text("")
    for name, message in (
        ("bad.dcm", "could not read .*bad.dcm"),
        ("bad.png", "could not read .*bad.png"),
        ("nan.npy", "finite CT numbers in .*nan.npy, got 1 NaN"),
        ("line.npy", r"one slice \(H, W\) in .*line.npy, got shape \(4,\)"),
        ("object.npy", "could not read .*object.npy"),
        ("eight.png", "could not read .*eight.png: expected a 16-bit grey PNG, got mode L"),
        ("offset.png", r"offset.png, got \[-32768, -32768\]; is the offset right"),
        ("a.txt", "one of .dcm, .png, .npy, got .*a.txt"),
    ):
        with pytest.raises(ValueError, match=message):
            read_ct(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="found no file .*absent.dcm"):
        read_ct(tmp_path / "absent.dcm")


def test_a_folder_of_slices(tmp_path):
    for name in ("b/2.npy", "a/9.npy", "a/1.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.full((4, 6), float(name[2])))
    folder = CTFolder(tmp_path)
    assert len(folder) == 3 and "3 slices" in repr(folder)
    assert [float(hu[0, 0]) for hu in folder] == [1, 9, 2]
    assert CTFolder(tmp_path, size=8)[0].shape == (8, 8)
    with pytest.raises(FileNotFoundError, match="found none at .*absent"):
        CTFolder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=".dcm, .png, .npy files in .*empty, found none"):
        CTFolder(tmp_path / "empty")


def test_slices_in_the_wheel(monkeypatch):
    slices = bundled_ct()
    assert {name: tuple(hu.shape) for name, hu in slices.items()} == {
        "head": (512, 512),
        "spine": (128, 128),
    }
    for hu in slices.values():
        assert hu.min() >= -1000 and 800 < hu.max() < 3072
    assert (slices["head"] == -1000).float().mean() > 0.1  # -2000 in the file, outside the circle
    monkeypatch.setitem(ct._BUNDLED, "spine", "absent.dcm")
    with pytest.raises(FileNotFoundError, match="expected absent.dcm inside the installed pydicom"):
        bundled_ct()


def test_resizing_fits_into_a_square_of_air():
    hu = torch.full((10, 20), 50.0)
    square = resize_ct(hu, 20)
    assert torch.equal(square[5:15], hu) and (square[:5] == -1000).all()
    small = resize_ct(torch.rand(64, 64, generator=seeded()) * 100, 16)
    assert small.shape == (16, 16) and small.std() < 20, "it averages"
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 2\) and 4"):
        resize_ct(torch.zeros(1, 2, 2), 4)


@pytest.mark.parametrize("size", [416, 333, 100])
def test_air_stays_air_when_a_slice_shrinks(size):
    assert resize_ct(torch.full((512, 512), -1000.0), size).unique().tolist() == [-1000.0]


# ---- the published layouts


@pytest.fixture
def small_layout(monkeypatch):
    monkeypatch.setattr(syndeeplesion, "_SIZE", 8)
    monkeypatch.setattr(syndeeplesion, "_IMAGE", (8, 8))
    monkeypatch.setattr(syndeeplesion, "_SINOGRAM", (4, 11))


def write_h5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with require("h5py", extra="tasks").File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


def published(root, *, sinograms=True, masks=(0, 10, 2)):
    """The two layouts, with small arrays of known content."""
    folder = root / "test" / "test_640geo" / "000001_01_01" / "007"
    write_h5(folder / "gt.h5", image=np.full((8, 8), 0.2, np.float32))
    trace = np.zeros((4, 11), np.uint8)
    trace[:, 3:5] = 1
    for k in masks:
        ma = np.full((8, 8), 0.1 * k, np.float32)
        ma[2, 3] = 2.0
        content = {"ma_CT": ma, "LI_CT": ma / 2}
        if sinograms:
            y = np.arange(44, dtype=np.float32).reshape(4, 11)
            write_h5(
                folder / f"{k}.h5", ma_sinogram=y, LI_sinogram=y / 2, metal_trace=trace, **content
            )
        else:
            np.savez(
                folder / f"{k}_image_domain.npz", metal_trace=np.packbits(trace, axis=1), **content
            )
    return folder


@pytest.mark.parametrize("sinograms", [True, False])
def test_both_layouts_are_read(tmp_path, small_layout, sinograms):
    published(tmp_path, sinograms=sinograms)
    data = SynDeepLesion(tmp_path)
    assert len(data) == 3 and "3 cases" in repr(data)
    assert [case.name.split("/")[-1] for case in data] == ["0", "2", "10"], "by number"
    case = data[1]
    assert case.name == "000001_01_01/007/2"
    assert case.gt[0, 0] == np.float32(0.2) and case.ma[0, 0] == np.float32(0.2)
    assert torch.equal(case.li, case.ma / 2)
    assert case.trace.shape == (4, 11) and case.trace[0].nonzero().flatten().tolist() == [3, 4]
    assert case.mask.nonzero().tolist() == [[2, 3]], "recovered where the scan shines"
    if sinograms:
        assert torch.equal(case.li_sinogram, case.ma_sinogram / 2)
    else:
        assert case.ma_sinogram is None and case.li_sinogram is None


def test_masks_beside_the_data_are_used(tmp_path, small_layout):
    published(tmp_path, masks=(0, 1))
    masks = np.zeros((16, 16, 2), np.uint8)
    masks[4:8, 4:8, 1] = 1
    np.savez(tmp_path / "testmask.npz", masks)
    case = SynDeepLesion(tmp_path)[1]
    assert case.mask.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    np.save(tmp_path / "one.npy", masks[..., :1])
    with pytest.raises(ValueError, match="1.h5 needs mask 1, there are 1"):
        SynDeepLesion(tmp_path, masks=tmp_path / "one.npy")[1]
    np.save(tmp_path / "grey.npy", masks * 255)
    with pytest.raises(ValueError, match=r"0 and 1 in .*grey.npy, .* values in \[0, 255\]"):
        read_masks(tmp_path / "grey.npy")
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="could not read .*bad.npz"):
        read_masks(tmp_path / "bad.npz")
    with pytest.raises(FileNotFoundError, match="found no file"):
        read_masks(tmp_path / "absent.npy")


def test_what_is_missing_is_named(tmp_path, small_layout, monkeypatch):
    monkeypatch.delenv("EQREG_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="give root=, or set EQREG_DATA"):
        SynDeepLesion()
    with pytest.raises(ValueError, match='"train" or "test", got \'val\''):
        SynDeepLesion(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="expected slices in .*test_640geo"):
        SynDeepLesion(tmp_path)
    (tmp_path / "test" / "test_640geo").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="K.h5 or K_image_domain.npz in .* found none"):
        SynDeepLesion(tmp_path)
    folder = published(tmp_path)
    monkeypatch.setenv("EQREG_DATA", str(tmp_path.parent))
    assert len(SynDeepLesion(name=tmp_path.name)) == 3
    (folder / "gt.h5").unlink()
    with pytest.raises(FileNotFoundError, match="has no gt.h5 beside it"):
        SynDeepLesion(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"no hdf5", "could not read .*0.h5"),
        ({"ma_CT": np.zeros((8, 8))}, "expected LI_CT, metal_trace in .*0.h5, found"),
        ({"ma_CT": np.zeros((4, 4))}, r"ma_CT in .*0.h5 of shape \(8, 8\), got \(4, 4\)"),
        ({"LI_CT": np.full((8, 8), np.nan)}, "LI_CT in .*0.h5 finite .* got 64 NaN"),
        ({"ma_CT": np.full((8, 8), 3000.0)}, "below 100, .* largest value of 3000"),
        ({"metal_trace": np.zeros((3, 3))}, r"metal_trace in .*0.h5 of shape \(4, 11\)"),
        ({"ma_sinogram": np.zeros((4, 9))}, r"ma_sinogram in .* of shape \(4, 11\), got \(4, 9\)"),
    ],
)
def test_damaged_files_are_named(tmp_path, small_layout, damage, message):
    folder = published(tmp_path, masks=(0,))
    if isinstance(damage, bytes):
        (folder / "0.h5").write_bytes(damage)
    else:
        sound = {
            "ma_CT": np.zeros((8, 8)),
            "LI_CT": np.zeros((8, 8)),
            "metal_trace": np.zeros((4, 11)),
        }
        write_h5(folder / "0.h5", **(damage if "expected LI_CT" in message else sound | damage))
    with pytest.raises(ValueError, match=message):
        SynDeepLesion(tmp_path)[0]


# ---- phantoms


@pytest.mark.parametrize(
    "kind", ["external", "soft", "virtual", "raw", "group", "objects", "large"]
)
def test_only_data_sets_of_the_file_itself_are_read(tmp_path, monkeypatch, kind):
    """HDF5 can point into other files in four ways; whoever wrote it would choose what we read."""
    values = np.ones((4, 4), np.float32)
    write_h5(tmp_path / "other.h5", image=values)
    values.tofile(tmp_path / "other.raw")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "external":
            file["image"] = h5py.ExternalLink("other.h5", "image")
        elif kind == "soft":
            file["more/image"] = h5py.ExternalLink("other.h5", "image")
            file["image"] = h5py.SoftLink("/more/image")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4, 4), "f4")
            layout[:] = h5py.VirtualSource("other.h5", "image", (4, 4))
            file.create_virtual_dataset("image", layout)
        elif kind == "raw":
            raw = [(str(tmp_path / "other.raw"), 0, 64)]
            file.create_dataset("image", (4, 4), "f4", external=raw)
        elif kind == "group":
            file.create_group("image")
        elif kind == "objects":
            file.create_dataset("image", (4,), h5py.string_dtype())
        else:
            monkeypatch.setattr(_arrays, "LARGEST", 1000)
            file.create_dataset("image", (10, 1000), "f4", compression="gzip")
    assert kind in ("group", "objects") or file_values(tmp_path / "a.h5").any() or kind == "large"
    message = {"objects": "image holds objects", "large": "image unpacks to 0 MB, expected at most"}
    with pytest.raises(ValueError, match=message.get(kind, "image is no data set in this file")):
        _arrays.from_h5(tmp_path / "a.h5", ["image"])
    assert _arrays.from_h5(tmp_path / "other.h5", ["image", "more"])[0].keys() == {"image"}


def file_values(path):
    """What h5py itself reads."""
    with h5py.File(path) as file:
        return file["image"][:]


@pytest.mark.parametrize("region", REGIONS)
def test_phantoms_are_anatomy(region):
    a, b = (phantom(region, 128, generator=seeded(s)) for s in (0, 1))
    assert a.shape == (128, 128) and a.dtype == torch.float32
    for hu in (a, b):
        assert torch.isfinite(hu).all() and hu.min() == -1000 and 500 < hu.max() < 2000
        soft = (hu > -150) & (hu < 120)
        assert 0.1 < float(soft.float().mean()) < 0.7
        c = torch.arange(128) - 63.5
        assert (hu[c[:, None] ** 2 + c**2 > 63**2] == -1000).all(), "it lies in the circle"
    assert (a - b).abs().mean() > 20, "patients differ"
    assert torch.equal(a, phantom(region, 128, generator=seeded(0)))
    assert hu_to_mu(a).min() == 0


def test_phantoms_have_texture():
    hu = phantom("abdomen", 256, generator=seeded())
    liver = hu[110:130, 80:100]
    assert 2 < float(liver.std()) < 30


def test_lungs_are_air_and_skulls_are_bone():
    thorax, head = (phantom(r, 128, generator=seeded()) for r in ("thorax", "head"))
    assert float(thorax[60:70, 36:46].mean()) < -600
    assert float(((head > 700).float()).mean()) > 0.03
    assert float((thorax > 700).float().mean()) < 0.05


def test_phantom_says_what_it_expects():
    with pytest.raises(ValueError, match="region must be one of .*'thorax'.*, got 'knee'"):
        phantom("knee")
    with pytest.raises(ValueError, match="at least 16 pixels, got 8"):
        phantom("head", 8)
    assert set(phantoms.REGIONS) == {"thorax", "abdomen", "pelvis", "head"}


# ---- implants


@pytest.mark.parametrize("kind", SHAPES)
def test_implants_have_the_area_asked_for(kind):
    for area in AREAS[kind]:
        mask = implant(kind, area, generator=seeded())
        assert mask.dtype == torch.bool
        assert float(mask.sum()) == pytest.approx(area, rel=0.12)
    half = implant(kind, AREAS[kind][1], 208, generator=seeded())
    assert float(half.sum()) == pytest.approx(AREAS[kind][1] / 4, rel=0.25)


def test_implants_cover_the_published_sizes():
    low, high = min(a for a, _ in AREAS.values()), max(b for _, b in AREAS.values())
    assert (low, high) == (min(PUBLISHED_AREAS), max(PUBLISHED_AREAS))


def test_an_angle_turns_an_implant_counter_clockwise():
    lying = implant("screw", 800, 128, generator=seeded())
    standing = implant("screw", 800, 128, angle=90, generator=seeded())
    assert (torch.rot90(lying) ^ standing).sum() <= 0.1 * lying.sum()


def test_implants_lie_in_the_body():
    body = torch.zeros(128, 128, dtype=torch.bool)
    body[40:90, 30:80] = True
    masks = implants(6, 128, body=body, generator=seeded())
    assert (masks.sum((1, 2)) > 0).all() and (masks <= body).all()
    assert torch.equal(masks, implants(6, 128, body=body, generator=seeded()))


def test_implants_say_what_they_expect():
    for call, message in (
        (lambda: implant("plate", 50), "kind must be one of .* got 'plate'"),
        (lambda: implant("clip", 0), "area must be positive, got 0"),
        (lambda: implant("hip", 2000, center=(0.99, 0)), "does not fit inside 416 x 416 pixels"),
        (lambda: implants(0), "n > 0 and some kinds, got n=0"),
        (lambda: implants(1, kinds=("plate",)), "kinds must be among .* got 'plate'"),
        (lambda: implants(1, 32, body=torch.ones(8, 8).bool()), r"bool body of shape \(32, 32\)"),
        (lambda: implants(1, 32, body=torch.zeros(32, 32).bool()), "no place for a screw inside"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- evaluation


def test_psnr_of_the_protocol_by_hand():
    truth = torch.full((1, 4, 4), 0.25)
    metal = torch.zeros(4, 4, dtype=torch.bool)
    metal[0] = True
    # 0.25 is shown as 128 (127.5 rounds to even), 0.3 as 153; 12 of the 16 pixels count 25 squared.
    expected = 10 * math.log10(255**2 / (25**2 * 12 / 16))
    assert float(mar_psnr(truth + 0.05, truth, metal)) == pytest.approx(expected, rel=1e-6)
    assert torch.isinf(mar_psnr(truth + 0.0005, truth, metal)).all(), "below one grey level"
    bright = torch.full((1, 4, 4), 2.0)
    assert torch.isinf(mar_psnr(bright, bright / 3, metal)).all(), "both are clamped"


def test_display_images_are_whole_numbers_without_metal():
    mu = torch.rand(3, 8, 8, generator=seeded())
    metal = torch.rand(8, 8, generator=seeded(1)) < 0.3
    shown = display(mu, metal)
    assert torch.equal(shown, shown.round()) and shown.min() == 0 and shown.max() == 255
    assert not shown[:, metal].any()


def test_error_in_hu_leaves_the_metal_out():
    truth = torch.full((2, 4, 4), MU_WATER)
    metal = torch.zeros(4, 4, dtype=torch.bool)
    metal[1, 1] = True
    x = truth + 0.01 * MU_WATER
    x[:, 1, 1] = 5
    assert torch.allclose(rmse_hu(x, truth, metal), torch.full((2,), 10.0).double(), atol=1e-3)
    with pytest.raises(ValueError, match="all metal"):
        rmse_hu(x, truth, torch.ones(4, 4, dtype=torch.bool))


def test_ssim_of_the_protocol():
    truth = torch.rand(2, 32, 32, generator=seeded()) * 0.4
    metal = torch.zeros(32, 32, dtype=torch.bool)
    assert torch.allclose(mar_ssim(truth, truth, metal), torch.ones(2))
    assert (mar_ssim(truth.flip(-1), truth, metal) < 0.5).all()


def test_groups_of_sizes():
    values = list(range(10))
    table = by_size(values, PUBLISHED_AREAS)
    assert table == {0: 0.5, 1: 2.5, 2: 4.5, 3: 6.5, 4: 8.5}
    assert by_size([1.0], [35]) == {4: 1.0}
    assert size_group(5000) == 0 and size_group(1) == 4
    with pytest.raises(ValueError, match="positive area, got 0"):
        size_group(0)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        by_size([1.0, 2.0], [35])


def test_protocol_says_what_it_expects():
    mu = torch.zeros(2, 4, 4)
    with pytest.raises(TypeError, match="bool mask of the metal, got torch.float32"):
        mar_psnr(mu, mu, mu)
    with pytest.raises(
        ValueError, match=r"shape \(3, 3\) does not fit images of shape \(2, 4, 4\)"
    ):
        rmse_hu(mu, mu, torch.zeros(3, 3, dtype=torch.bool))


def test_spacing_is_that_of_the_pixels_given_out(write_dicom, tmp_path):
    path = write_dicom(VALUES, PixelSpacing=[0.5, 0.25])
    assert CTFolder(path.parent).spacing(0) == (0.5, 0.25)
    side = max(read_ct(path).shape)
    assert CTFolder(path.parent, size=2 * side).spacing(0) == (0.25, 0.125)
    np.save(tmp_path / "z.npy", np.zeros((2, 2)))
    assert CTFolder(tmp_path).spacing(-1) is None  # the file does not say
