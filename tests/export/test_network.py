"""The network that leaves: Pillow's resizing within it, what it says, and what cannot be recorded."""

import numpy as np
import pytest
import torch
from exported_nets import images
from tiny import Run

from pipeline.data.image_store import squash
from pipeline.evaluation.prediction import load_model
from pipeline.export.network import build_network, filter_parts, one_view, squash_in_graph
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod


@pytest.mark.parametrize(
    "shape", [(64, 64), (500, 333), (333, 500), (80, 80), (40, 640), (97, 31), (1700, 1900), (16, 16)]
)
@pytest.mark.parametrize("side", [64, 80])
def test_images_are_resized_to_the_same_bytes_as_pillow_gives(shape: tuple[int, int], side: int) -> None:
    (image,) = images([shape])
    found = squash_in_graph(torch.from_numpy(image)[None], side) * 255
    assert np.array_equal(found[0].permute(1, 2, 0).numpy().round(3), squash(image, side))


def test_a_filter_of_half_as_many_pixels_is_twice_as_wide() -> None:
    # pixel 1 of 2, made of 4: distances 2.5, 1.5, 0.5, 0.5 from its centre 3 over a half-width of 2: 0, 1/4, 3/4, 3/4
    assert filter_parts(4, 2)[1].tolist() == [0, round(2**22 / 7), round(3 * 2**22 / 7), round(3 * 2**22 / 7)]


@pytest.mark.parametrize("kind", ["teacher", "pixelcam"])
def test_a_network_says_what_the_model_says(finished: Run, kind: str) -> None:
    params = load_params(finished.params)
    network, predictor = (
        build_network(finished.models / kind, params),
        load_model(finished.models / kind, params=params),
    )
    for image in images():
        with torch.no_grad():
            probabilities, heat = network(torch.from_numpy(image)[None])
        expected = predictor.predict([image])[0]
        assert probabilities[0].tolist() == pytest.approx(list(expected.probabilities.values()), abs=1e-6)
        np.testing.assert_allclose(heat[0].numpy(), expected.map, atol=1e-6)


def test_one_view_reads_both_maps_from_the_image_as_it_is(finished: Run) -> None:
    params = load_params(finished.params)
    assert params.cam.symmetries == 2
    plain = one_view(params)
    assert (plain.cam.symmetries, plain.pixelcam_map.symmetries) == (1, 1)
    assert plain.cam.method is params.cam.method


@pytest.mark.parametrize("method", [CamMethod.SCORECAM, CamMethod.EIGENCAM, CamMethod.SMOOTH_GRADCAM_PP])
def test_cams_that_no_other_program_can_follow_are_refused_at_once(finished: Run, method: CamMethod) -> None:
    params = load_params(finished.params)
    params = params.model_copy(update={"cam": params.cam.model_copy(update={"method": method})})
    with pytest.raises(PixelCAMError, match=rf"cam.method: {method}.*cannot be exported; .*layercam"):
        build_network(finished.teacher, params)


def test_gradients_within_the_encoder_are_refused(finished: Run) -> None:
    params = load_params(finished.params)
    params = params.model_copy(update={"cam": params.cam.model_copy(update={"layers": (-2, -1)})})
    with pytest.raises(PixelCAMError, match=r"cam.layers: expected \[-1\]"):
        build_network(finished.teacher, params)
