"""A loaded model asked about images in memory and in files: the same answers, of each image's own size."""

from pathlib import Path

import numpy as np
import pytest
from tiny import Run

from pipeline.data.images import read_image
from pipeline.evaluation.prediction import load_model
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError


def files(run: Run, count: int = 3) -> list[Path]:
    return [run.root / f"raw/home/images/test_{number}.png" for number in range(count)]


def test_files_and_pixels_give_the_same_answers_whatever_the_batches(finished: Run) -> None:
    model = load_model(str(finished.pixelcam))
    from_files = model.predict(files(finished), batch_size=2)
    from_pixels = model.predict([read_image(file) for file in files(finished)], batch_size=3)
    assert model.classes == ("benign", "malignant")
    for one, other, file in zip(from_files, from_pixels, files(finished), strict=True):
        assert one.map.shape == read_image(file).shape[:2]
        assert one.map.dtype == np.float32
        assert list(one.probabilities) == ["benign", "malignant"]
        assert sum(one.probabilities.values()) == pytest.approx(1)
        np.testing.assert_allclose(one.map, other.map, atol=1e-5)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert model.predict([]) == []


def test_images_of_several_sizes_go_together(finished: Run) -> None:
    image = read_image(files(finished)[0])
    found = load_model(finished.pixelcam).predict([image, image[:20, :33]])
    assert [each.map.shape for each in found] == [image.shape[:2], (20, 33)]


def test_a_teacher_needs_params(finished: Run) -> None:
    with pytest.raises(PixelCAMError, match=r"holds a teacher.*params=load_params"):
        load_model(finished.teacher)
    (found,) = load_model(finished.teacher, params=load_params(finished.params)).predict(files(finished, 1))
    assert 0 <= found.map.min() < found.map.max() <= 1


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
    ids=["float", "gray", "alpha", "empty"],
)
def test_what_is_no_image_is_refused(pixels: np.ndarray, finished: Run) -> None:
    with pytest.raises(PixelCAMError, match=r"expected a list of images, each a file or an array uint8 \(H, W, 3\)"):
        load_model(finished.pixelcam).predict([pixels])
    with pytest.raises(PixelCAMError, match=r"^one\.png: expected a list of images, got one; put it into a list$"):
        load_model(finished.pixelcam).predict("one.png")
    with pytest.raises(PixelCAMError, match=r"nowhere\.png"):
        load_model(finished.pixelcam).predict(["nowhere.png"])
