"""The AAPM CT-MAR benchmark's layout, on a folder made of that layout: the data cannot ship."""

import math
import pickle

import numpy as np
import pytest
import torch

from eqreg.data.ct_mar import CTMAR, FIELD_MM, ct_mar_scores
from eqreg.data.metal.slices import find_slices
from eqreg.data.phantoms import phantom


@pytest.fixture
def folder(tmp_path):
    """Two cases as the archives unpack them, the second without sinograms."""
    for region, number in (("body", 17), ("head", 3)):
        hu = phantom(
            "pelvis" if region == "body" else "head",
            512,
            generator=torch.Generator().manual_seed(number),
        )
        mask = torch.zeros(512, 512)
        mask[250:260, 250:270] = 1
        for where, kind, image in (
            ("Target", "nometal", hu), ("Baseline", "metalart", hu + 30 + 2000 * mask), ("Mask", "metalonlymask", mask),
        ):  # fmt: skip
            write(
                tmp_path
                / f"{region}1"
                / where
                / f"training_{region}_{kind}_img{number}_512x512x1.raw",
                image,
            )
    sinogram = torch.arange(900_000.0).reshape(1000, 900)
    write(tmp_path / "body1" / "Baseline" / "training_body_metalart_sino17_900x1000.raw", sinogram)
    (tmp_path / "body1" / "Mask" / "training_body_metalinfo17.json").write_text("{}")
    (tmp_path / "parameters.pkl").write_bytes(pickle.dumps(_Bomb()))
    return tmp_path


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image.numpy().astype("<f4").tobytes())


def test_cases_are_found_by_their_names_and_nothing_is_unpickled(folder):
    cases = CTMAR(folder)
    assert [c.name for c in cases] == ["training_body_17", "training_head_3"]
    body, head = cases
    assert body.gt.shape == (512, 512) and body.mask.sum() == 200
    assert torch.allclose((body.ma - body.gt)[~body.mask], torch.tensor(30.0), atol=1e-3)
    # 900x1000 in the name, 1000 views of 900 cells in the file.
    assert body.ma_sinogram.shape == (1000, 900) and body.ma_sinogram[1, 0] == 900
    assert body.gt_sinogram is None and head.ma_sinogram is None
    assert (body.field_mm, head.field_mm) == (FIELD_MM["body"], FIELD_MM["head"]) == (400.0, 220.16)
    assert len(CTMAR(folder, "head")) == 1 and len(cases[:1]) == 1


def test_what_is_no_case_is_named(folder, tmp_path):
    path = folder / "head1" / "Mask" / "training_head_metalonlymask_img3_512x512x1.raw"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"img3_512x512x1.raw: expected 1048576 bytes, float32 of"):
        CTMAR(folder)[1]
    write(path, torch.zeros(512, 512))
    with pytest.raises(ValueError, match="expected metal, found none"):
        CTMAR(folder)[1]
    write(path, torch.full((512, 512), math.nan))
    with pytest.raises(ValueError, match="expected finite numbers"):
        CTMAR(folder)[1]
    path.unlink()
    assert len(CTMAR(folder)) == 1
    with pytest.raises(FileNotFoundError, match="incomplete cases such as training_head_3"):
        CTMAR(folder, "head")
    with pytest.raises(FileNotFoundError, match="found none"):
        CTMAR(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected body, head or None, got 'knee'"):
        CTMAR(folder, "knee")
    again = folder / "copy" / "training_body_nometal_img17_512x512x1.raw"
    write(again, torch.zeros(512, 512))
    with pytest.raises(ValueError, match="are of one name"):
        CTMAR(folder)


def test_scores_by_hand(folder):
    case = CTMAR(folder, "body")[0]
    perfect = ct_mar_scores(case.gt, case.gt, case.mask)
    assert perfect == {
        "rmse": 0.0,
        "ssim": pytest.approx(1.0),
        "bone_volume": 0.0,
        "bone_dice": 1.0,
    }
    shifted = ct_mar_scores(
        case.ma, case.gt, case.mask
    )  # 30 HU everywhere, the metal does not count
    assert shifted["rmse"] == pytest.approx(30, rel=1e-4) and shifted["ssim"] < 1
    assert shifted["bone_dice"] < 1 and shifted["bone_volume"] > 0
    inside = case.gt * torch.where(case.mask, 50.0, 1.0)
    assert ct_mar_scores(inside, case.gt, case.mask)["rmse"] == 0
    skimage = pytest.importorskip("skimage.metrics")
    a, b = (torch.where(case.mask, 100.0, t).double().numpy() for t in (case.ma, case.gt))
    _, local = skimage.structural_similarity(
        b, a, sigma=1.5, gaussian_weights=True, use_sample_covariance=False, data_range=5000, full=True
    )  # fmt: skip
    from eqreg.data.metal.field import body_mask

    ours = (body_mask(case.gt) & ~case.mask).numpy()
    assert shifted["ssim"] == pytest.approx(local[ours].mean(), abs=1e-4)


def test_ssim_of_hu_reacts_to_brightness_more_than_to_noise():
    """As the page says, of numbers around 0."""
    hu, metal = (
        phantom("pelvis", 512, generator=torch.Generator().manual_seed(1)),
        torch.zeros(512, 512),
    )
    metal[250:255, 250:255] = 1
    soft = ((hu > -200) & (hu < 150)).float()
    noise = torch.randn(hu.shape, generator=torch.Generator().manual_seed(0))
    bright, noisy = (ct_mar_scores(hu + 50 * soft * x, hu, metal > 0) for x in (1, noise))
    assert 1 - bright["ssim"] == pytest.approx(0.19, abs=0.005)
    assert 1 - noisy["ssim"] == pytest.approx(0.19 / 2, abs=0.02)


def test_scores_say_what_they_expect(folder):
    case = CTMAR(folder, "body")[0]
    with pytest.raises(TypeError, match="expected a bool mask, got torch.float32"):
        ct_mar_scores(case.gt, case.gt, case.mask.float())
    with pytest.raises(ValueError, match="of one shape"):
        ct_mar_scores(case.gt[:5], case.gt, case.mask)
    with pytest.raises(ValueError, match="expected a patient and a finite image"):
        ct_mar_scores(case.gt * math.nan, case.gt, case.mask)


def test_their_slices_can_be_scanned_again(folder, tmp_path):
    """As the page does it: truths as .npy, for ``eqreg ct simulate``."""
    again = tmp_path / "slices"
    again.mkdir()
    for case in CTMAR(folder):
        np.save(again / f"{case.name}.npy", case.gt.clamp(-1000, 2400).numpy())
    found, refused = find_slices([str(again)])
    assert len(found) == 2 and not refused and found[0].read().shape == (512, 512)
