"""The eight symmetries of the square: all different, each undone, and averaged maps turn with the image."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from pipeline.cams.views import PLAIN, average_maps, read_views, turn, turn_back
from pipeline.params.config import MapParams
from pipeline.params.errors import PixelCAMError

SQUARE = torch.arange(9.0).view(1, 1, 3, 3)


def brightness(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return as map the first channel, with its left column doubled, and as logits the mean and the side."""
    maps = images[:, 0].clone()
    maps[:, :, 0] *= 2
    side = torch.full((len(images),), float(images.shape[-1]))
    return maps, torch.stack([images.mean(dim=(1, 2, 3)), side], dim=1)


def test_there_are_eight_and_each_is_undone() -> None:
    turned = [turn(SQUARE, symmetry) for symmetry in range(8)]
    assert len({tuple(each.flatten().tolist()) for each in turned}) == 8
    assert torch.equal(turned[0], SQUARE)
    for symmetry, each in enumerate(turned):
        assert torch.equal(turn_back(each, symmetry), SQUARE)


def test_what_is_mirrored_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert turn(image, 1).flatten().tolist() == [2, 1, 4, 3]
    assert turn(image, 2).flatten().tolist() == [3, 4, 1, 2]
    assert turn(image, 4).flatten().tolist() == [1, 3, 2, 4]
    assert turn(image, 5).flatten().tolist() == [3, 1, 4, 2]
    assert turn(image[0, 0], 6).flatten().tolist() == turn(image, 6).flatten().tolist() == [2, 4, 1, 3]


@pytest.mark.parametrize("symmetries", [1, 2, 4, 8])
def test_the_average_turns_with_the_image_for_every_symmetry_that_is_averaged(symmetries: Literal[1, 2, 4, 8]) -> None:
    params = MapParams(scales=(1.0,), symmetries=symmetries, margin=0.0)

    def read(images: Tensor) -> Tensor:
        maps, _ = read_views(images, params, image_scale=1.0, section="cam", read=brightness)
        assert len(maps) == symmetries
        return average_maps(maps)

    alike = [torch.allclose(turn_back(read(turn(SQUARE, each)), each), read(SQUARE)) for each in range(8)]
    assert alike[:symmetries] == [True] * symmetries
    assert not all(alike) or symmetries == 8


def test_logits_are_those_of_the_plain_view_even_if_its_map_does_not_count() -> None:
    for scales, maps in (((1.0, 2.0), 2), ((2.0,), 1)):
        found, logits = read_views(
            torch.rand(1, 3, 8, 8),
            MapParams(scales=scales, symmetries=1, margin=0.0),
            image_scale=2.0,
            section="cam",
            read=brightness,
        )
        assert len(found) == maps
        assert logits[0, 1] == 4


@pytest.mark.parametrize(("margin", "reads"), [(0.0, 8), (1.0, 9)])
def test_logits_come_with_the_map_of_the_plain_view_or_else_from_one_more(margin: float, reads: int) -> None:
    images = torch.arange(32.0 * 32).view(1, 1, 32, 32).expand(1, 3, 32, 32)
    seen: list[Tensor] = []

    def corner(view: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(view)
        return view[:, 0], view[:, 0, 0, :1]

    params = MapParams(scales=(1.0,), symmetries=8, margin=margin / 2)
    maps, logits = read_views(images, params, image_scale=1.0, section="cam", read=corner)
    assert (len(maps), len(seen), logits.item()) == (8, reads, 0)


def test_the_plain_way_is_the_image_as_it_is_and_nothing_else() -> None:
    images = torch.rand(1, 3, 8, 8)
    (found,), _ = read_views(images, PLAIN, image_scale=1.0, section="cam", read=lambda view: (view[:, 0], view))
    assert torch.equal(found, images[:, 0])


def test_maps_are_averaged_on_the_finest_grid() -> None:
    fine, coarse = torch.zeros(1, 4, 4), torch.ones(1, 2, 2)
    assert torch.equal(average_maps([coarse, fine]), torch.full((1, 4, 4), 0.5))
    assert average_maps([coarse]) is coarse


def test_a_scale_that_fails_is_named_with_its_section() -> None:
    def fail(images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-1] != 4:
            raise RuntimeError("too large")
        return brightness(images)

    params = MapParams(scales=(1.0, 2.0), symmetries=1, margin=0.0)
    with pytest.raises(
        PixelCAMError,
        match=r"pixelcam_map\.scales: .*no images at scale 2.0 with margin 0.0 \(too large\); use \[1.0\]",
    ):
        read_views(torch.rand(1, 3, 8, 8), params, image_scale=2.0, section="pixelcam_map", read=fail)


def test_a_margin_continues_the_image_and_is_cut_off_again() -> None:
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def halve(view: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(view)
        return view[:, 0, ::2, ::2], view.mean(dim=(1, 2, 3))[:, None]

    params = MapParams(scales=(1.0,), symmetries=2, margin=0.25)
    maps, logits = read_views(images, params, image_scale=1.0, section="cam", read=halve)
    assert [tuple(view.shape) for view in seen] == [(2, 3, 128, 192), (2, 3, 128, 192), (2, 3, 64, 128)]
    assert torch.equal(seen[0][:, :, 32:-32, 32:-32], images)
    assert torch.equal(seen[0][:, :, 31, 32:-32], images[:, :, 1])
    assert torch.equal(maps[0], images[:, 0, ::2, ::2])
    assert torch.equal(maps[1], images[:, 0, ::2, 1::2])
    assert torch.equal(logits, images.mean(dim=(1, 2, 3))[:, None]), "those of the image as it is"


def test_a_margin_is_whole_cells_of_any_encoder() -> None:
    sides: list[int] = []

    def note(view: Tensor) -> tuple[Tensor, Tensor]:
        sides.append(view.shape[-1])
        return view[:, 0, ::32, ::32], view.mean(dim=(1, 2, 3))[:, None]

    params = MapParams(scales=(1.0,), symmetries=1, margin=0.2)
    (found,), _ = read_views(torch.rand(1, 3, 320, 320), params, image_scale=1.0, section="cam", read=note)
    assert sides[0] == 320 + 2 * 64
    assert found.shape[-1] == 10
