"""Tiny domains, parameters and a finished run: a training takes a second, yet every stage is gone through."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from pipeline.data.manifest import Manifest, ManifestRow, Split
from pipeline.params.config import AugmentationParams, Params, load_params
from pipeline.runtime.files import sha256_of
from stages import (
    adapt,
    evaluate_ood,
    extract_pseudo_labels,
    model_cards,
    prepare,
    report,
    train_pixelcam,
    train_teacher,
)

ROOT = Path(__file__).parent.parent
SIZE = (72, 60)  # width and height of the images: not square, and not the input size
CLASSES = ("benign", "malignant")
COUNTS = {"home": {"train": 6, "val": 2, "test": 3}, "away": {"test": 4}}
NO_AUGMENTATION = AugmentationParams(
    enlarge=1, flip=False, rotate=False, brightness=0, contrast=0, saturation=0, hue=0, stain=0.0, blur=0.0, zoom=0.0
)


def make_row(image: str, *, root: Path, **changes: Any) -> ManifestRow:  # noqa: ANN401 - any field
    """Return the row of a training image that exists below `root`, with other values where given."""
    mask = changes.get("mask", "")
    values: dict[str, Any] = {
        "image": image,
        "mask": "",
        "ignore_mask": "",
        "label": "benign",
        "class_idx": 0,
        "split": Split.TRAIN,
        "patient": "",
        "width": 1,
        "height": 1,
        "image_sha256": sha256_of(root / image),
        "mask_sha256": sha256_of(root / mask) if mask else "",
        "mask_selectable": False,
    }
    return ManifestRow(**(values | changes))


def write_images(root: Path, images: Sequence[npt.NDArray[np.uint8]]) -> Manifest:
    """Write images as 0.png, 1.png, ... and return a manifest whose `class_idx` counts them."""
    root.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / f"{number}.png")
    return Manifest(tuple(make_row(f"{i}.png", root=root, class_idx=i) for i in range(len(images))), root)


def noise_images(count: int, *, size: int = 8) -> list[npt.NDArray[np.uint8]]:
    """Return images of random pixels, uint8 (size, size, 3)."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


def write_domain(
    root: Path,
    counts: Mapping[str, int],
    *,
    seed: int,
    empty_class: str | None = None,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write a table domain: a dark disc is of the first class, a bar of the second, an upright one of the third.

    Images of `empty_class` hold none of it.
    """
    generator = np.random.default_rng(seed)
    rows = ["image,label,mask,split"]
    for split, count in counts.items():
        for number in range(count):
            label = classes[number % len(classes)]
            image, mask = _draw(generator, class_idx=classes.index(label), empty=label == empty_class)
            name = f"{split}_{number}.png"
            for folder, picture in (("images", image), ("masks", mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(root / folder / name)
            rows.append(f"images/{name},{label},masks/{name},{split}")
    (root / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _draw(
    generator: np.random.Generator, *, class_idx: int, empty: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    centre_y, centre_x = generator.integers(20, 40, 2)
    shapes = ((y - centre_y) ** 2 + (x - centre_x) ** 2 < 144, abs(y - centre_y) < 8, abs(x - centre_x) < 8)
    mask = shapes[class_idx] & (not empty)
    image = generator.normal((225, 180, 205), 12, (height, width, 3))
    image[mask] -= (90, 100, 40)
    return image.clip(0, 255).astype(np.uint8), mask


def params_values(root: Path) -> dict[str, Any]:
    """Return params.yaml as shipped with everything small, and the table domains `home` and `away` below `root`."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values |= {"source": "home", "target_domains": ["home", "away"], "adaptation": {}, "bounds": []}
    values["encoder"] = {"name": "test_efficientnet", "weights": "random"}
    values["domains"] = {
        name: {
            "adapter": "table",
            "root": str(root / name),
            "table": "table.csv",
            "classes": list(CLASSES),
            "background_class": "benign" if name == "away" else None,
            "review": None,
            "val_fraction": 0.0,
            "test_fraction": 1.0,
            "adapt_fraction": 0.0,
            "seed": 0,
            "shared_patients": "reject",
        }
        for name in ("home", "away")
    }
    values["model"] |= {"input_size": 64}
    for section in ("train_teacher", "train_pixelcam"):
        values[section] |= {"steps": 4, "batch_size": 2, "keep": ["last", "val_accuracy"]}
    values["train_pixelcam"]["pixel_loss_weight"] = 1.0
    values["cam"] = {"method": "layercam", "layers": [-1], "scales": [1.0], "symmetries": 2, "margin": 0.0}
    values["pixelcam_map"] = {"scales": [1.0], "symmetries": 1, "margin": 0.0}
    values["extract_pseudo_labels"] |= {"batch_size": 4, "foreground_threshold": 0.5, "background_fraction": 0.3}
    values["evaluate_ood"] |= {"weights": ["selected", "last", "val_accuracy"], "map_size": 32, "batch_size": 2}
    values["report"]["images_per_domain"] = 3
    values["adaptation"] = {}
    return values


def adapting(**changes: object) -> dict[str, object]:
    """Return what makes a run adapt its models to the test images of the domain `away`, with changes to how."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    like = next(iter(values["adaptation"].values()))
    return {"adaptation": {"away": like | {"steps": 4, "batch_size": 2, "images": "test"} | changes}}


def change(values: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Set dotted keys and return the values."""
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[last] = value
    return values


def tiny_params(root: Path, changes: Mapping[str, object] | None = None) -> Params:
    """Return the tiny parameters for domains below `root`."""
    return Params.model_validate(change(params_values(root), changes or {}))


@dataclass(frozen=True)
class Run:
    """A project's folder: raw data, params.yaml and where the stages put their outputs."""

    root: Path

    @property
    def params(self) -> Path:
        """The params file."""
        return self.root / "params.yaml"

    @property
    def prepared(self) -> Path:
        """The prepared domains."""
        return self.root / "data/prepared"

    @property
    def checkpoints(self) -> Path:
        """The state of trainings under way."""
        return self.root / ".checkpoints"

    @property
    def models(self) -> Path:
        """The folder of all models."""
        return self.root / "models"

    @property
    def teacher(self) -> Path:
        """The teacher's folder."""
        return self.root / "models/teacher"

    @property
    def pixelcam(self) -> Path:
        """PixelCAM's folder."""
        return self.root / "models/pixelcam"

    @property
    def store(self) -> Path:
        """The pseudo-labels."""
        return self.root / "data/pseudo_labels.zarr"

    @property
    def quality(self) -> Path:
        """The pseudo-labels' quality."""
        return self.root / "metrics/pseudo_labels.json"

    @property
    def summary(self) -> Path:
        """The few scores that experiments are compared by."""
        return self.root / "metrics/scores.json"

    @property
    def scores(self) -> Path:
        """The scores."""
        return self.root / "metrics/evaluation.json"

    @property
    def per_image(self) -> Path:
        """The scores of each image."""
        return self.root / "metrics/per_image.csv"

    @property
    def curves(self) -> Path:
        """The precision-recall curves."""
        return self.root / "metrics/precision_recall.csv"

    @property
    def matrix(self) -> Path:
        """The domain matrix."""
        return self.root / "metrics/domain_matrix.csv"

    @property
    def adaptation(self) -> Path:
        """What adapting to domains changed."""
        return self.root / "metrics/adaptation.json"

    @property
    def slides(self) -> Path:
        """Maps and scores of slides."""
        return self.root / "metrics/slides"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "reports/index.html"

    @property
    def overview(self) -> Path:
        """The method in one picture."""
        return self.root / "reports/overview.png"

    @property
    def overlays(self) -> Path:
        """What both models look at, a picture per domain."""
        return self.root / "reports/overlays"

    @property
    def cards(self) -> Path:
        """The model cards."""
        return self.root / "reports/model_cards"

    @property
    def try_it(self) -> Path:
        """The page to try PixelCAM on; empty unless it is asked for."""
        return self.root / "reports/try_it"


def start_run(root: Path, changes: Mapping[str, object] | None = None, *, classes: Sequence[str] = CLASSES) -> Run:
    """Write two domains and a params.yaml; no stage has run yet."""
    run = Run(root)
    write_domain(root / "raw/home", COUNTS["home"], seed=1, classes=classes)
    write_domain(root / "raw/away", COUNTS["away"], seed=2, empty_class=classes[0], classes=classes)
    of_domains = {f"domains.{domain}.classes": list(classes) for domain in COUNTS}
    write_params(run, of_domains | {"domains.away.background_class": classes[0]} | dict(changes or {}))
    return run


def write_params(run: Run, changes: Mapping[str, object] | None = None) -> None:
    """Write the params.yaml of a run."""
    values = change(params_values(run.root / "raw"), changes or {})
    run.params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def finish_run(run: Run) -> None:
    """Call every stage as dvc.yaml does."""
    prepare_domains(run)
    train_teacher.main(run.params, run.prepared / "home", run.teacher, run.checkpoints)
    extract_pseudo_labels.main(run.params, run.prepared / "home", run.teacher, run.store, run.quality)
    train_pixelcam.main(run.params, run.prepared / "home", run.store, run.teacher, run.pixelcam, run.checkpoints)
    for domain in load_params(run.params).adaptation:
        models = (run.teacher, run.pixelcam, run.models / f"adapted_{domain}")
        adapt.main(domain, run.params, run.prepared / domain, *models, run.checkpoints)
    scores = (run.scores, run.per_image, run.curves, run.matrix, run.adaptation)
    evaluate_ood.main(run.params, run.prepared, run.models, run.summary, *scores, run.slides, run.checkpoints)
    model_cards.main(run.params, run.prepared, run.models, run.scores, run.adaptation, run.cards)
    report.main(
        run.params,
        run.prepared,
        run.store,
        run.models,
        run.quality,
        *scores,
        run.slides,
        run.report,
        run.overview,
        run.overlays,
        run.try_it,
    )


def prepare_domains(run: Run) -> None:
    """Prepare both domains."""
    for domain in ("home", "away"):
        prepare.main(domain, run.params, run.prepared / domain)


def digests(folder: Path, *, cards: bool = False) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path; of cards that lie beside models if asked for."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (cards or path.name != "README.md" or not path.with_name("model.json").exists())
    }
