"""Finding CT slices in folders as clinics and challenges hand them out, and what is said of all else."""

import numpy as np
import pytest
import torch
from PIL import Image

from eqreg.data.ct import read_ct
from eqreg.data.metal.make import Plan, make
from eqreg.data.metal.protocol import Metal, Recipe
from eqreg.data.metal.slices import find_slices
from eqreg.data.phantoms import phantom
from eqreg.experiments.cli import main
from eqreg.extras import require
from eqreg.physics.ct import small_fan

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def values(seed=0):
    """Stored values of a head: HU + 1024."""
    hu = phantom("head", 64, generator=torch.Generator().manual_seed(seed))
    return (hu.round() + 1024).numpy().astype(np.int16)


@pytest.fixture
def dicom(tmp_path):
    pydicom = require("pydicom", extra="tasks")

    def write(name, pixels=None, **tags):
        pixels = values() if pixels is None else pixels
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", pydicom.uid.CTImageStorage)
        meta.MediaStorageSOPInstanceUID = "1.2.3"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file = pydicom.dataset.Dataset()
        file.file_meta = meta
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        file.Modality, file.PatientID, file.SeriesInstanceUID = "CT", "Jane Doe", "1.1"
        file.Rows, file.Columns = pixels.shape[-2:]
        if pixels.ndim == 3:
            file.NumberOfFrames = len(pixels)
        file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 16, 15
        file.PixelRepresentation, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.RescaleSlope, file.RescaleIntercept = "1", "-1024"
        file.PixelSpacing = ["4.0", "3.0"]
        file.PixelData = pixels.tobytes()
        for key, value in tags.items():
            if value is None:
                delattr(file, key)
            else:
                setattr(file, key, value)
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file.save_as(path, enforce_file_format=True)
        return path

    return write


def test_dicom_by_any_name_series_told_apart_and_in_order(dicom, tmp_path):
    dicom("a.dcm", values(2), InstanceNumber=3)
    dicom("b.IMA", values(1), InstanceNumber=1)
    dicom("00c", values(0), InstanceNumber=2)
    dicom("other/d.dcm", SeriesInstanceUID="1.2")
    dicom("other/e.dcm", PatientID="John Doe", PixelSpacing=None)
    (tmp_path / "in" / "notes.txt").write_text("no slice")
    (tmp_path / "in" / "short").write_bytes(b"x")
    found, refused = find_slices([str(tmp_path / "in")])
    assert not refused
    assert [(s.name, s.folder) for s in found] == [
        ("b.IMA", "000001_01_01/000"),
        ("00c", "000001_01_01/001"),
        ("a.dcm", "000001_01_01/002"),
        ("other/d.dcm", "000001_01_02/000"),
        ("other/e.dcm", "000002_01_01/000"),
    ]
    assert found[0].spacing == (4.0, 3.0) and found[-1].spacing is None
    assert torch.equal(found[0].read(), torch.from_numpy(values(1).astype(np.float32)) - 1024)
    assert not any("Doe" in str(s) for s in found), "no name of a patient leaves its file"
    some, _ = find_slices([str(tmp_path / "in")], every=2)
    assert [s.number for s in some] == [0, 2, 0, 0]


def test_slices_are_ordered_by_where_they_lie(dicom, tmp_path):
    for name, z in (("a.dcm", 20.0), ("b.dcm", -5.0), ("c.dcm", 7.5)):
        dicom(name, ImagePositionPatient=[0, 0, z])
    assert [s.name for s in find_slices([str(tmp_path / "in")])[0]] == ["b.dcm", "c.dcm", "a.dcm"]


def test_frames_of_one_file_with_settings_of_their_own(dicom):
    pydicom = require("pydicom", extra="tasks")

    def sequence(**tags):
        item = pydicom.dataset.Dataset()
        for key, value in tags.items():
            setattr(item, key, value)
        return pydicom.sequence.Sequence([item])

    shared = sequence(PixelMeasuresSequence=sequence(PixelSpacing=["2", "2"]))
    frames = pydicom.sequence.Sequence(
        sequence(PixelValueTransformationSequence=sequence(RescaleSlope="1", RescaleIntercept=b))[0]
        for b in ("-1024", "-1000")
    )
    path = dicom(
        "multi.dcm", np.stack([values(0), values(1)]), PixelSpacing=None, RescaleSlope=None, RescaleIntercept=None,
        SharedFunctionalGroupsSequence=shared, PerFrameFunctionalGroupsSequence=frames,
    )  # fmt: skip
    found, _ = find_slices([str(path)])
    assert [(s.frame, s.spacing) for s in found] == [(0, (2.0, 2.0)), (1, (2.0, 2.0))]
    second = np.maximum(values(1).astype(np.float32) - 1000, -1000)
    assert np.array_equal(found[1].read().numpy(), second)
    with pytest.raises(ValueError, match="expected one grey image, got a file of 2"):
        read_ct(path)


def test_padding_of_a_range_becomes_air(dicom):
    pixels = values()
    pixels[:3], pixels[3:5] = -2000, -1990
    path = dicom("p.dcm", pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
    assert (find_slices([str(path)])[0][0].read()[:5] == -1000).all()


def test_nifti_lies_as_dicom_does(tmp_path):
    nibabel = require("nibabel", extra="ct")
    volume = np.full((30, 20, 4), -1000, np.int16)
    volume[5, 2, 1] = 700  # to the right, at the back
    for name, flip in (("a.nii", 1), ("b.nii.gz", -1)):
        affine = np.diag([flip * 0.9, 0.7, 5.0, 1.0])
        data = volume if flip == 1 else volume[::-1]
        nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / name)
    found, refused = find_slices([str(tmp_path)])
    assert not refused and len(found) == 8
    assert {s.patient for s in found} == {1, 2} and found[0].spacing == pytest.approx((0.7, 0.9))
    for source in (found[1], found[5]):
        image = source.read()
        # Columns go to the patient's left, so right is on the left side of the picture; rows go back.
        assert image.shape == (20, 30) and image[20 - 1 - 2, 30 - 1 - 5] == 700
        assert (image > 0).sum() == 1
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), tmp_path / "c.nii"
    )
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "d.nii")
    _, refused = find_slices([str(tmp_path)])
    assert len(refused) == 2
    assert "c.nii: expected a volume (X, Y, slices), got shape (4, 4, 4, 3)" in refused[0]
    assert "d.nii: expected CT numbers, got pixels of type uint8" in refused[1]


def test_png_and_numpy_by_folders(tmp_path):
    hu = values(3).astype(np.int32) - 1024
    (tmp_path / "p1").mkdir()
    for name in ("p1/1.png", "p1/2.png", "3.png"):
        Image.fromarray((hu + 32768).astype(np.uint16)).save(tmp_path / name)
    np.save(tmp_path / "4.npy", hu.astype(np.float32))
    found, refused = find_slices([str(tmp_path)])
    assert not refused
    patients = {s.name: s.patient for s in found}
    assert patients["p1/1.png"] == patients["p1/2.png"] and len(set(patients.values())) == 3
    assert all(np.array_equal(s.read().numpy(), hu) and s.spacing is None for s in found)


# ---- bad input: one line that names the file, what was found and what is expected


def bad_files(tmp_path, dicom):
    """Each bad file with what is said of it."""
    grey = np.full((64, 64), 100, np.uint8)
    folder = tmp_path / "in"
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.repeat(grey[..., None], 3, -1)).save(folder / "colour.png")
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(folder / "offset.png")
    np.save(folder / "bytes.npy", grey)
    np.save(folder / "complex.npy", np.full((64, 64), 40 + 1j))
    np.save(folder / "picture.npy", np.linspace(0, 255, 4096, dtype=np.float32).reshape(64, 64))
    np.save(folder / "mu.npy", np.linspace(0, 0.4, 4096, dtype=np.float32).reshape(64, 64))
    np.save(folder / "nan.npy", np.full((64, 64), np.nan, np.float32))
    np.save(folder / "huge.npy", np.full((64, 64), 1e6, np.float32))
    np.save(folder / "volume.npy", np.zeros((3, 64, 64), np.float32) - 1000)
    np.save(folder / "air.npy", np.full((64, 64), -1000, np.float32))
    metal = values().astype(np.float32) - 1024
    metal[30:33, 30:33] = 2976
    np.save(folder / "metal.npy", metal)
    (folder / "cut.npy").write_bytes((folder / "metal.npy").read_bytes()[:999])
    dicom("mr.dcm", Modality="MR")
    dicom("capture.dcm", SOPClassUID=SECONDARY)
    dicom("scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dicom("noslope.dcm", RescaleSlope=None)
    dicom("nointercept.dcm", RescaleIntercept=None)
    dicom("rgb.dcm", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dicom("spacing.dcm", PixelSpacing=["0.0007", "0.0007"])
    (folder / "text.dcm").write_text("no DICOM at all")
    return {
        "grey.png": "expected a 16-bit grey PNG, got mode L",
        "colour.png": "expected a 16-bit grey PNG, got mode RGB",
        "offset.png": "is the offset right?",
        "bytes.npy": "expected CT numbers, got an 8-bit picture (uint8)",
        "complex.npy": "expected CT numbers, got values of type complex128",
        "picture.npy": "looks like a picture of 8 bits or like attenuation",
        "mu.npy": "looks like a picture of 8 bits or like attenuation",
        "nan.npy": "expected finite CT numbers",
        "huge.npy": "expected CT numbers in [-4096, 32767] HU",
        "volume.npy": "expected one slice (H, W)",
        "air.npy": "expected a body, got nothing but air inside the field",
        "metal.npy": "found 2976 HU, which is metal or saturation; expected below 2500 HU",
        "cut.npy": "",  # the words are those of numpy
        "mr.dcm": "expected modality CT, got MR",
        "capture.dcm": "got a secondary capture",
        "scout.dcm": "expected a slice, got a localizer",
        "noslope.dcm": "expected RescaleSlope, without which values are no CT numbers",
        "nointercept.dcm": "expected RescaleIntercept, without which values are no CT numbers",
        "rgb.dcm": "expected grey pixels, got colour (RGB)",
        "spacing.dcm": "expected pixels of 0.05 to 6 mm, got 0.0007 x 0.0007",
        "text.dcm": "expected a DICOM file",
    }


def test_every_bad_file_is_one_line_and_the_good_one_is_used(dicom, tmp_path, capsys):
    dicom("good.dcm")
    expected = bad_files(tmp_path, dicom)
    recipe, told = Recipe(small_fan(64, views=40), metal=Metal(("clips",))), []
    plan = Plan((str(tmp_path / "in"),), test=0.0)
    manifest = make(plan, tmp_path / "out", recipe, report=told.append, progress=False)
    assert [c["source"] for c in manifest["cases"]] == ["good.dcm"]
    lines = {line.partition(": ")[0].rpartition("/")[2]: line for line in manifest["left_out"]}
    assert set(lines) == set(expected)
    for name, message in expected.items():
        assert message in lines[name], name
        assert "\n" not in lines[name] and lines[name].count(f"/{name}") == 1
        assert any(message in line for line in told), name
    assert not any("Traceback" in line for line in told)


def test_nothing_usable_is_an_error(dicom, tmp_path, capsys):
    dicom("mr.dcm", Modality="MR")
    out = ["--out", str(tmp_path / "out")]
    assert main(["ct", "simulate", str(tmp_path / "in"), *out]) == 2
    error = capsys.readouterr().err
    assert "found none" in error and "mr.dcm: expected modality CT, got MR" in error
    assert main(["ct", "simulate", str(tmp_path / "nowhere"), *out]) == 2
    assert "found no file or folder" in capsys.readouterr().err
    assert main(["ct", "simulate", "phantoms:none", *out]) == 2
    assert (
        "expected phantoms:N with N from 1 to 99999, got 'phantoms:none'" in capsys.readouterr().err
    )
    for count in ("0", "-1", "9" * 20, "\N{SUPERSCRIPT TWO}", ""):
        assert main(["ct", "simulate", f"phantoms:{count}", *out]) == 2
        assert "expected phantoms:N with N from 1 to 99999" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_changes_the_slices_is_told(dicom, tmp_path):
    dicom("lossy.dcm", LossyImageCompression="01")
    np.save(tmp_path / "in" / "bare.npy", values().astype(np.float32) - 1024)
    recipe, told = Recipe(small_fan(128, views=40), metal=Metal(("clips",))), []
    make(Plan((str(tmp_path / "in"),), test=0.0), tmp_path / "out", recipe, report=told.append)
    assert "lossy.dcm: its CT numbers were changed by lossy compression" in told
    assert "lossy.dcm: enlarged 1.28 times: finer than the slice was measured" in told
    assert any(
        t.startswith("bare.npy: the file does not say how large its pixels are") for t in told
    )
    told.clear()
    plan = Plan((str(tmp_path / "in" / "bare.npy"),), test=0.0, spacing=3.125)
    make(plan, tmp_path / "out2", recipe, report=told.append)
    assert not any("does not say" in t for t in told)
