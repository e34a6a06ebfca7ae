"""The layers beneath the synthetic images, on numbers that can be worked out by hand."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.synthetic.frame import FIELD_WIDTH, Frame, pack, ramp, scatter, smooth_noise, thin
from pipeline.synthetic.glands import distance_within
from pipeline.synthetic.nuclei import Cells, stamp
from pipeline.synthetic.stains import Region, SlideStyle, StainMaps, draw_style, scan, take_tones


def style_without_noise() -> SlideStyle:
    return SlideStyle(
        vectors=np.array([[0.6, 0.7, 0.3], [0.1, 0.9, 0.2]], dtype=np.float32),
        means=(0.5, 0.25),
        white=np.array([1.0, 0.9, 0.8], dtype=np.float32),
        empty=0.0,
        gamma=1.0,
        blur=0.0,
        noise=0.0,
        defocus=0.0,
        jpeg_quality=None,
    )


def one_cell(*, y: float, x: float, major: float, minor: float, angle: float) -> Cells:
    one = np.ones(1, dtype=np.float32)
    return Cells(
        points=np.array([[y, x]], dtype=np.float32),
        major=one * np.float32(major),
        minor=one * np.float32(minor),
        angle=one * np.float32(angle),
        strength=one,
        pallor=0 * one,
        lobing=0 * one,
        nucleolus=0 * one,
    )


def test_ramp_rises_and_falls() -> None:
    values = np.array([-1.0, 0.0, 0.5, 1.0, 9.0], dtype=np.float32)
    assert ramp(values, low=0.0, high=1.0).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert ramp(values, low=1.0, high=0.0).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_frame_keeps_its_width_in_micrometres_at_any_size() -> None:
    assert (Frame(64).scale, Frame(512).scale) == (0.4, 3.2)  # of 160 micrometres
    np.testing.assert_allclose(Frame(64).axis()[[0, -1]], [1.25, 158.75])
    np.testing.assert_allclose(Frame(512).axis()[[0, -1]], [0.15625, 159.84375])


def test_light_follows_beer_and_lambert() -> None:
    stains = StainMaps(np.full((4, 4), 2.0, np.float32), np.full((4, 4), 7.0, np.float32))
    image = scan(np.random.default_rng(0), stains, style_without_noise())
    # The amounts are brought to the style's means, 0.5 and 0.25: densities 0.325, 0.575 and 0.2.
    expected = np.rint(255 * np.array([1.0, 0.9, 0.8]) * 10.0 ** -np.array([0.325, 0.575, 0.2]))
    assert np.abs(image.reshape(-1, 3) - expected).max() <= 1


def test_a_lens_out_of_focus_spreads_a_dot_and_a_file_that_is_compressed_changes_pixels() -> None:
    amounts = np.zeros((160, 160), dtype=np.float32)  # a pixel is a micrometre
    amounts[80, 80] = 1.0
    stains = StainMaps(amounts, np.zeros_like(amounts))
    style = replace(style_without_noise(), means=(1 / amounts.size, 0.0))  # the dot keeps its amount of 1
    sharp, blurred, compressed = (
        scan(np.random.default_rng(0), stains, style)
        for style in (style, replace(style, defocus=1.0), replace(style, jpeg_quality=60))
    )
    assert (sharp != sharp[0, 0]).any(axis=2).sum() == 1
    dark = 1.0 - 10.0**-0.7  # of green; the middle of a Gaussian of 1 pixel holds 0.1592 of all
    expected = np.rint(255 * 0.9 * (1.0 - 0.1592 * dark))
    assert blurred[80, 80, 1] == pytest.approx(expected, abs=1)
    assert compressed.shape == sharp.shape
    assert (compressed != sharp).any(axis=2).sum() > 8


def test_stain_vectors_have_unit_length_and_differ_between_laboratories() -> None:
    means = {}
    for tissue, laboratory in product(Tissue, Laboratory):
        styles = [draw_style(np.random.default_rng(seed), tissue, laboratory) for seed in range(40)]
        for style in styles:
            np.testing.assert_allclose(np.linalg.norm(style.vectors, axis=1), 1.0, rtol=1e-5)
        means[tissue, laboratory] = np.mean([style.vectors for style in styles], axis=0)
    home, away = means[Tissue.COLON, Laboratory.HOME], means[Tissue.COLON, Laboratory.AWAY]
    assert np.abs(home - means[Tissue.LYMPH_NODE, Laboratory.HOME]).max() > 0.05
    assert (np.abs(home - away).max(axis=1) > 0.15).all()  # both dyes


def test_another_laboratory_scans_less_sharply_and_compresses_its_files() -> None:
    home, away = (draw_style(np.random.default_rng(0), Tissue.COLON, laboratory) for laboratory in Laboratory)
    assert (home.defocus, home.jpeg_quality) == (0.0, None)
    assert np.hypot(away.blur, away.defocus) > 1.6 * home.blur
    assert away.jpeg_quality == 60
    assert away.blur == home.blur  # the section is as thick


@pytest.mark.parametrize("size", [64, 256, 512])
def test_a_stamped_ellipse_has_its_area_and_place(size: int) -> None:
    frame = Frame(size)
    cover = stamp(frame, one_cell(y=70.0, x=90.0, major=30.0, minor=12.0, angle=0.0)).cover
    assert cover.sum() / frame.scale**2 == pytest.approx(np.pi * 30 * 12, rel=0.05)
    y, x = frame.grid()
    assert (cover * y).sum() / cover.sum() == pytest.approx(70.0, abs=0.5)
    assert (cover * x).sum() / cover.sum() == pytest.approx(90.0, abs=0.5)
    assert (cover > 0.5).any(axis=0).sum() > 2 * (cover > 0.5).any(axis=1).sum()  # the long axis lies along x


def test_a_cell_is_cut_at_the_border_and_no_cell_leaves_nothing() -> None:
    frame = Frame(64)
    cut = stamp(frame, one_cell(y=0.0, x=80.0, major=20.0, minor=20.0, angle=0.0)).cover
    assert cut.sum() / frame.scale**2 == pytest.approx(np.pi * 400 / 2, rel=0.08)
    assert not cut[32:].any()
    outside = one_cell(y=-100.0, x=2.0 * FIELD_WIDTH, major=20.0, minor=20.0, angle=0.0)
    assert not stamp(frame, outside).cover.any()


def test_thinned_points_keep_their_distance_and_none_is_missing() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (800, 2)).astype(np.float32)
    kept = thin(np.random.default_rng(1), points, 7.0)
    assert pdist(kept).min() > 7.0
    nearest = cdist(points, kept).min(axis=1)
    assert nearest.max() <= 7.0  # every dropped point has a kept one within reach


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_thin(count: int) -> None:
    points = np.zeros((count, 2), dtype=np.float32)
    assert thin(np.random.default_rng(0), points, 5.0).shape == (count, 2)


def test_points_stay_where_they_are_wanted() -> None:
    frame = Frame(128)
    left = frame.blank()
    left[:, :64] = 1.0
    for points in (
        scatter(np.random.default_rng(0), frame, left, spacing=8.0),
        pack(np.random.default_rng(0), frame, left, spacing=8.0, jitter=0.1),
    ):
        assert len(points) > 60
        assert points[:, 1].max() < FIELD_WIDTH / 2
    assert len(scatter(np.random.default_rng(0), frame, frame.blank(), spacing=8.0)) == 0


def test_distance_within_a_band() -> None:
    frame = Frame(64)
    region = np.zeros((64, 64), dtype=bool)
    region[10:15] = True
    pixels = distance_within(frame, region)[9:16, 5] * frame.scale
    np.testing.assert_allclose(pixels, [0.0, 0.5, 1.5, 2.5, 1.5, 0.5, 0.0], atol=1e-6)
    assert distance_within(frame, np.ones((64, 64), dtype=bool)).min() > FIELD_WIDTH
    assert distance_within(frame, np.zeros((64, 64), dtype=bool)).max() == 0.0


@pytest.mark.parametrize("wavelength", [3.0, 10.0, 60.0])
def test_smooth_noise_is_standard_and_varies_over_its_wavelength(wavelength: float) -> None:
    fields = [smooth_noise(np.random.default_rng(seed), Frame(128), wavelength) for seed in range(60)]
    values = np.stack(fields)
    assert values.mean() == pytest.approx(0.0, abs=0.12)
    assert values.std() == pytest.approx(1.0, abs=0.15)
    shift = int(np.ceil(4 * wavelength * Frame(128).scale))  # beyond the reach of a spline
    if shift < 100:
        assert abs(float(np.mean(values[:, :, shift:] * values[:, :, :-shift]))) < 0.1


def test_tones_of_the_companions_are_taken_and_order_is_kept() -> None:
    rng = np.random.default_rng(0)
    shape = (96, 96)
    everywhere = np.ones(shape, dtype=bool)
    own = StainMaps(*(rng.gamma(2.0, 0.2, shape).astype(np.float32) for _ in range(2)))
    wanted = [StainMaps(*(rng.normal(mean, 0.1, shape).astype(np.float32) for _ in range(2))) for mean in (0.6, 0.9)]
    taken = take_tones(Region(own, everywhere), [Region(stains, everywhere) for stains in wanted])
    for name in ("haematoxylin", "eosin"):
        before, after = getattr(own, name).ravel(), getattr(taken, name).ravel()
        pooled = np.concatenate([getattr(companion, name).ravel() for companion in wanted])
        quantiles = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(np.quantile(after, quantiles), np.quantile(pooled, quantiles), atol=0.06)
        ranks = [np.argsort(np.argsort(values)) for values in (before, after)]
        assert np.asarray(np.corrcoef(ranks))[0, 1] > 0.6


def test_tones_change_within_the_region_alone() -> None:
    rng = np.random.default_rng(0)
    left = np.zeros((64, 64), dtype=bool)
    left[:, :32] = True
    own, other = (
        StainMaps(*(rng.gamma(2.0, mean, (64, 64)).astype(np.float32) for _ in range(2))) for mean in (0.2, 0.5)
    )
    taken = take_tones(Region(own, left), [Region(other, np.ones((64, 64), dtype=bool))])
    np.testing.assert_array_equal(taken.eosin[~left], own.eosin[~left])
    assert taken.eosin[left].mean() == pytest.approx(other.eosin.mean(), rel=0.1)
