"""Pictures: the right pixels in the right colours, at any size, and nothing given is written into."""

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.params.vocabulary import BACKGROUND, IGNORE
from pipeline.report.overlays import (
    BACKGROUND_COLOUR,
    CLASS_COLOURS,
    CONTOUR_COLOUR,
    FOREGROUND_COLOUR,
    Picture,
    colour_labels,
    colour_map,
    contact_sheet,
    fit,
    heat_overlay,
    label_colour,
    label_colours,
    label_overlay,
    mask_contour,
    outline_layer,
)


def plain(height: int, width: int, colour: tuple[int, int, int] = (255, 255, 255)) -> Picture:
    return np.full((height, width, 3), colour, dtype=np.uint8)


# Over white: three quarters of the colour and a quarter of 255.
BACKGROUND_OVER_WHITE = [115, 64, 127]
FOREGROUND_OVER_WHITE = [254, 237, 92]
SKY_BLUE_OVER_WHITE = [128, 199, 238]
VERMILION_OVER_WHITE = [224, 134, 64]


class TestClassColours:
    labels: npt.NDArray[np.uint8] = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)

    def test_each_class_has_its_colour_and_ignored_pixels_none(self) -> None:
        colours = [BACKGROUND_COLOUR, *list(CLASS_COLOURS.values())[:3]]
        layer = colour_labels(self.labels, size=(2, 10))
        assert layer[0, ::2].tolist() == [*([*colour, 255] for colour in colours), [0, 0, 0, 0]]
        drawn = label_overlay(plain(1, 5), labels=self.labels)
        over_white = [BACKGROUND_OVER_WHITE, FOREGROUND_OVER_WHITE, SKY_BLUE_OVER_WHITE, VERMILION_OVER_WHITE]
        np.testing.assert_allclose(drawn[0], [*over_white, [255, 255, 255]], atol=1)

    def test_over_dark_tissue_a_colour_is_darker(self) -> None:
        drawn = label_overlay(plain(1, 2, (100, 100, 100)), labels=np.array([[1, 255]], dtype=np.uint8))
        # 253 * 0.75 * (0.6 + 0.4 * 100 / 255) + 0.25 * 100 is 168.6.
        np.testing.assert_allclose(drawn[0], [[169, 156, 46], [100, 100, 100]], atol=1)

    def test_the_legend_names_the_colours_that_are_drawn(self) -> None:
        legend = label_colours(("background", "a", "b", "c", "d", "e", "f"))
        assert list(legend) == ["a", "b", "c", "d", "e", "f", "background"]
        assert legend["f"] == legend["a"] == ("yellow", FOREGROUND_COLOUR), "colours begin anew"
        assert [colour for _, colour in legend.values()] == [label_colour(label) for label in (1, 2, 3, 4, 5, 6, 0)]
        assert label_colours(("background", "foreground")) == {
            "foreground": ("yellow", FOREGROUND_COLOUR),
            "background": ("purple", BACKGROUND_COLOUR),
        }


class TestHeatOverlay:
    def test_ends_of_the_scale_have_the_label_colours(self) -> None:
        drawn = heat_overlay(plain(1, 2), heat=np.array([[0.0, 1.0]], dtype=np.float32))
        np.testing.assert_allclose(drawn[0], [BACKGROUND_OVER_WHITE, FOREGROUND_OVER_WHITE], atol=1)

    def test_higher_is_lighter_so_that_grey_print_tells(self) -> None:
        heat = np.linspace(0, 1, 50, dtype=np.float32)[None]
        lightness = heat_overlay(plain(1, 50), heat=heat).astype(float) @ [0.2126, 0.7152, 0.0722]
        assert bool((np.diff(lightness[0]) > 0).all())

    def test_the_colour_of_the_tissue_does_not_mix_in(self) -> None:
        heat = np.full((2, 2), 0.5, dtype=np.float32)
        pink, grey = plain(2, 2, (200, 100, 180)), plain(2, 2, (127, 127, 127))
        np.testing.assert_allclose(heat_overlay(pink, heat=heat), heat_overlay(grey, heat=heat), atol=1)

    def test_a_small_map_covers_an_image_that_is_not_square(self) -> None:
        drawn = heat_overlay(plain(30, 50), heat=np.array([[0.0, 1.0]], dtype=np.float32))
        assert drawn.shape == (30, 50, 3)
        np.testing.assert_allclose(drawn[:, 0], [BACKGROUND_OVER_WHITE] * 30, atol=1)
        np.testing.assert_allclose(drawn[:, -1], [FOREGROUND_OVER_WHITE] * 30, atol=1)

    def test_float16_and_float64_maps_look_alike(self) -> None:
        heat = np.linspace(0, 1, 16).reshape(4, 4)
        usual = heat_overlay(plain(4, 4), heat=heat.astype(np.float32))
        half = heat_overlay(plain(4, 4), heat=heat.astype(np.float16))
        double = heat_overlay(plain(4, 4), heat=heat)  # type: ignore[arg-type]
        np.testing.assert_allclose(half, usual, atol=1)
        np.testing.assert_array_equal(double, usual)


class TestMaskContour:
    mask: npt.NDArray[np.bool_] = np.pad(np.ones((6, 8), dtype=bool), 4)

    def test_outlines_the_inner_edge(self) -> None:
        drawn = mask_contour(plain(14, 16, (90, 90, 90)), mask=self.mask)
        outline = (drawn == CONTOUR_COLOUR).all(axis=2)
        expected = self.mask.copy()
        expected[5:9, 5:11] = False
        np.testing.assert_array_equal(outline, expected)

    def test_shows_on_white_too_by_its_dark_edge(self) -> None:
        drawn = mask_contour(plain(14, 16), mask=self.mask)
        assert drawn[3, 8].max() < 100
        assert drawn[5, 8].max() < 100

    def test_leaves_what_is_far_from_it(self) -> None:
        drawn = mask_contour(plain(14, 16, (90, 90, 90)), mask=self.mask)
        assert drawn[0, 0].tolist() == [90, 90, 90]
        assert drawn[7, 8].tolist() == [90, 90, 90]

    @pytest.mark.parametrize("inside", [True, False])
    def test_draws_nothing_where_there_is_no_border(self, inside: bool) -> None:
        image = plain(9, 5, (90, 90, 90))
        np.testing.assert_array_equal(mask_contour(image, mask=np.full((9, 5), inside)), image)

    def test_does_not_write_into_the_image(self) -> None:
        image = plain(14, 16, (90, 90, 90))
        mask_contour(image, mask=self.mask)
        assert bool((image == 90).all())

    def test_a_mask_of_another_size_is_brought_to_the_image(self) -> None:
        drawn = mask_contour(plain(40, 40, (90, 90, 90)), mask=np.array([[True, False]]))
        columns = (drawn == CONTOUR_COLOUR).all(axis=2).any(axis=0).nonzero()[0]
        assert columns.tolist() == [19]


class TestLabelOverlay:
    def test_resizing_makes_no_foreground_between_background_and_ignore(self) -> None:
        labels = np.array([[BACKGROUND, IGNORE]], dtype=np.uint8)
        drawn = label_overlay(plain(3, 1200), labels=labels)
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 2


class TestFit:
    @pytest.mark.parametrize(("size", "fitted"), [((100, 50), (20, 10)), ((50, 100), (10, 20)), ((500, 1), (20, 1))])
    def test_shrinks_the_longer_side(self, size: tuple[int, int], fitted: tuple[int, int]) -> None:
        assert fit(plain(*size), side=20).shape == (*fitted, 3)

    def test_leaves_what_is_small(self) -> None:
        image = plain(7, 20)
        assert fit(image, side=20) is image


class TestContactSheet:
    def test_places_pictures_in_their_cells(self) -> None:
        red, blue = plain(8, 8, (255, 0, 0)), plain(4, 8, (0, 0, 255))
        sheet = contact_sheet([[red, blue], [blue]], side=8)
        assert sheet.shape == (2 * 10 + 2, 2 * 10 + 2, 3)
        assert sheet[2, 2].tolist() == [255, 0, 0]
        assert sheet[2, 12].tolist() == [255, 255, 255]
        assert sheet[4, 12].tolist() == [0, 0, 255]
        assert sheet[14, 2].tolist() == [0, 0, 255]
        assert bool((sheet[12:, 12:] == 255).all())

    @pytest.mark.parametrize("rows", [[], [[]]])
    def test_of_nothing_is_refused(self, rows: list[list[Picture]]) -> None:
        with pytest.raises(ValueError, match="at least one"):
            contact_sheet(rows, side=8)


class TestLayers:
    def test_an_outline_is_that_of_the_contour(self) -> None:
        mask = np.pad(np.ones((6, 9), dtype=np.bool_), 5)
        layer = outline_layer(mask, size=mask.shape)
        drawn = mask_contour(plain(16, 19, (100, 100, 100)), mask=mask)
        np.testing.assert_array_equal(layer[..., 3] == 255, (drawn == CONTOUR_COLOUR).all(axis=2))
        np.testing.assert_array_equal(layer[..., 3] > 0, (drawn != 100).any(axis=2))
        assert (layer[layer[..., 3] == 255][:, :3] == CONTOUR_COLOUR).all()

    def test_an_empty_mask_has_no_outline(self) -> None:
        assert not outline_layer(np.zeros((4, 4), dtype=np.bool_), size=(8, 8)).any()

    def test_a_map_has_the_colours_of_the_scale(self) -> None:
        colours = colour_map(np.array([[0.0, 1.0]], dtype=np.float32), size=(3, 40))
        assert colours.shape == (3, 40, 3)
        assert tuple(colours[0, 0]) == BACKGROUND_COLOUR
        np.testing.assert_allclose(colours[0, -1], FOREGROUND_COLOUR, atol=1)
