"""BioImage packages: the Zoo's own library validates, opens and runs them, and finds the model's own map."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from exported_nets import images
from tiny import Run

from pipeline.evaluation.prediction import load_model
from pipeline.export.bioimage import Presentation, run_package_test, write_package
from pipeline.export.network import MAP, PROBABILITIES
from pipeline.export.onnx_file import Exported
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError

core = pytest.importorskip("bioimageio.core")

CARD = "# A model\n\nWhat it is.\n"


def presentation() -> Presentation:
    (image,) = images([(48, 80)])
    return Presentation(
        authors=("Ada Lovelace",), card=CARD, test_image=image, cover=np.zeros((32, 64, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def package(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bioimage") / "pixelcam.zip"
    write_package(path, exported, presentation())
    return path


def test_the_zoo_validates_a_package_and_gives_the_same_map(package: Path, finished: Run) -> None:
    image = presentation().test_image
    described = core.load_model_description(package)
    said = core.predict(model=described, inputs={"image": image[np.newaxis]})
    expected = load_model(finished.pixelcam, params=load_params(finished.params)).predict([image])[0]
    np.testing.assert_allclose(said.members[MAP].data.values[0], expected.map, atol=1e-4)
    found = said.members[PROBABILITIES].data.values[0].tolist()
    assert found == pytest.approx(list(expected.probabilities.values()), abs=1e-4)


def test_a_package_says_who_made_it_and_what_it_is(package: Path) -> None:
    described = core.load_model_description(package)
    assert [author.name for author in described.authors] == ["Ada Lovelace"]
    assert str(described.license) == "Apache-2.0"
    assert described.outputs[0].axes[1].channel_names == ["benign", "malignant"]
    with zipfile.ZipFile(package) as archive:
        assert archive.read("README.md").decode() == CARD
        assert {"rdf.yaml", "model.onnx", "image.npy", "map.npy", "probabilities.npy", "cover.png"} <= set(
            archive.namelist()
        )


def test_a_package_whose_model_says_something_else_fails_its_test(package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:-4] + b"\x00\x00\x80\x3f" if name == "map.npy" else content)
    with pytest.raises(PixelCAMError, match="fails its own test"):
        run_package_test(broken)
