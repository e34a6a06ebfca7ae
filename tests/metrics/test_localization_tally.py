"""Maps of batches as they are counted while images stream by: by hand, with images that have no mask."""

import pytest
import torch
from torch import Tensor

from pipeline.data.maps import EvaluationBatch
from pipeline.metrics.localization import LocalizationTally, count_maps, measure_maps
from pipeline.metrics.pixel_histogram import count_batch, empty_histogram, join

MAPS = torch.tensor([[[0.9, 0.1]], [[0.6, 0.2]], [[0.3, 0.4]]])
MASKS = torch.tensor([[[True, False]], [[False, True]], [[False, False]]])


def test_boxes_are_counted_of_every_image_with_foreground() -> None:
    tally = LocalizationTally()
    tally.add(measure_maps(count_maps(MAPS, target=MASKS)))
    scores = tally.scores({})
    # The first image's box is met above 0.1; the second's is at most half of what is found.
    assert (scores.boxes.iou_30, scores.boxes.iou_50, scores.boxes.iou_70) == (1.0, 1.0, 0.5)
    assert scores.images_without_roi == 1


def test_pxap_is_pooled_and_image_ap_is_the_mean_over_images() -> None:
    # Each image by itself is perfect, but one image's background is higher than the other's foreground.
    maps = torch.tensor([[[0.9, 0.8]], [[0.3, 0.1]]])
    tally = LocalizationTally()
    tally.add(measure_maps(count_maps(maps, target=torch.tensor([[[True, False]], [[True, False]]]))))
    scores = tally.scores({})
    assert scores.pxap == pytest.approx(5 / 6)
    assert scores.image_ap == 1.0


class OnGpu(Tensor):
    """A tensor that says it is a GPU's."""

    is_cuda = True


def test_the_precisions_that_a_gpu_finds_are_those_that_the_processor_does() -> None:
    drawn = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    maps, target, ignore = drawn[0], drawn[1] > 0.6, drawn[2] > 0.7
    on_gpu = count_maps(maps.as_subclass(OnGpu), target=target, ignore=ignore)
    on_cpu = count_maps(maps, target=target, ignore=ignore)
    assert on_gpu.aps is not None
    assert on_cpu.aps is None
    assert measure_maps(on_gpu).aps == pytest.approx(measure_maps(on_cpu).aps, rel=1e-6)


@pytest.mark.parametrize("with_ignore", [True, False])
def test_images_without_a_mask_are_not_counted_nor_what_is_ignored(with_ignore: bool) -> None:
    ignore = torch.tensor([[[False, False]], [[False, True]], [[False, True]]])
    batch = EvaluationBatch(
        image_ids=("a", "b", "c"),
        images=torch.zeros(3, 3, 1, 2),
        masks=MASKS,
        has_mask=torch.tensor([True, False, True]),
        class_idx=torch.zeros(3, dtype=torch.int64),
        ignore=ignore if with_ignore else None,
    )
    found = join(count_batch(empty_histogram(device=torch.device("cpu")), maps=MAPS, batch=batch))
    assert found.foreground.nonzero().flatten().tolist() == [900]
    assert found.background.nonzero().flatten().tolist() == ([100, 300] if with_ignore else [100, 300, 400])
