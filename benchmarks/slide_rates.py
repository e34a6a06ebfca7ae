"""The rates that the plan for whole slides in docs/scaling.md rests on, each on one thread of a CPU.

    OMP_NUM_THREADS=1 python -m benchmarks.slide_rates FOLDER_OF_IMAGES

The images are cut into patches of 224 pixels. Times are those of the processor, so that other programs count little.
"""

import io
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image

from pipeline.data.manifest import Manifest, ManifestRow, Split
from pipeline.data.maps import EvaluationBatch, resize_map
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.encoders.encoder import build_encoder
from pipeline.evaluation.domain_scores import Resampling
from pipeline.evaluation.localizers import EvaluationDomain, evaluate_domain
from pipeline.metrics.scores import Fitted, ModelName, Threshold, ThresholdSource
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer, build_pixelcam
from pipeline.models.teacher import build_teacher
from pipeline.params.config import load_params
from pipeline.params.vocabulary import EncoderWeights, ImageHeadName, PixelHeadName
from pipeline.pseudo_labels.store import StoredImage, write_store
from pipeline.pseudo_labels.thresholding import make_pseudo_labels
from pipeline.runtime.files import sha256_of
from pipeline.runtime.seeding import make_generator
from pipeline.training.pixelcam import PixelCAMObjective

SIDE: Final = 224
BATCH: Final = 8
UInt8Array = npt.NDArray[np.uint8]


def seconds(action: Callable[[], object], *, times: int) -> float:
    """Return the median time that the processor spends on an action, in seconds."""
    action()
    taken = []
    for _ in range(times):
        began = process_time()
        action()
        taken.append(process_time() - began)
    return float(np.median(taken))


def patches_of(folder: Path, *, count: int) -> list[UInt8Array]:
    """Cut the first images of a folder into patches, uint8 (224, 224, 3)."""
    found: list[UInt8Array] = []
    for path in sorted(folder.rglob("*")):
        if (
            path.suffix.lower() in (".png", ".bmp", ".jpg", ".tif", ".webp")
            and "anno" not in path.name
            and len(found) < count
        ):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            for top in range(0, pixels.shape[0] - SIDE + 1, SIDE):
                found += [pixels[top : top + SIDE, x : x + SIDE] for x in range(0, pixels.shape[1] - SIDE + 1, SIDE)]
    return found[:count]


def files(patches: list[UInt8Array]) -> None:
    """Print bytes and decoding time of patches as JPEG."""
    for quality in (80, 90):
        written = []
        for patch in patches:
            buffer = io.BytesIO()
            Image.fromarray(patch).save(buffer, "jpeg", quality=quality)
            written.append(buffer.getvalue())
        took = seconds(lambda: [np.asarray(Image.open(io.BytesIO(each))) for each in written], times=5)  # noqa: B023
        size = np.mean([len(each) for each in written])
        print(f"JPEG {quality}: {size:.0f} bytes, {1000 * took / len(written):.2f} ms to decode")


def loading(patches: list[UInt8Array]) -> None:
    """Print what reading and augmenting a JPEG patch for training costs, and what its row of the manifest takes."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for index, patch in enumerate(patches):
            path = Path(folder) / f"tumor_001/{index:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(patch).save(path, quality=80)
            image, sha256 = path.relative_to(folder).as_posix(), sha256_of(path)
            row = ManifestRow(
                image=image,
                mask="",
                ignore_mask="",
                label="tumour",
                class_idx=1,
                split=Split.TRAIN,
                patient="001",
                width=SIDE,
                height=SIDE,
                image_sha256=sha256,
                mask_sha256="",
                mask_selectable=False,
            )
            rows.append(row)
        training_set = TrainingSet(
            Manifest(tuple(rows), Path(folder)),
            input_size=SIDE,
            augmentation=load_params(Path("params.yaml")).augmentation,
            seed=0,
        )
        took = seconds(lambda: list(training_set.batches(1, BATCH)), times=3) / len(rows)
        line = sum(len(str(value)) + 1 for value in vars(rows[0]).values())
    tracemalloc.start()
    kept = [replace(rows[0], image=f"{number:030d}", image_sha256=f"{number:064d}") for number in range(10_000)]
    memory = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    print(f"training set: {1000 * took:.2f} ms to augment; a row of the manifest: {line} bytes, {memory:.0f} in memory")


def networks(name: str, images: torch.Tensor) -> PixelCAM:
    """Print the rates of an encoder's forward pass and of a joint training step; return the model."""
    encoder = build_encoder(name, input_size=SIDE, output_stride=16, weights=EncoderWeights.RANDOM, seed=0)
    teacher = build_teacher(encoder, image_head=ImageHeadName.GAP, classes=2, seed=0)
    model = build_pixelcam(encoder, teacher.image_head, PixelHeadName.LINEAR, seed=0)
    with torch.inference_mode():
        model.eval()
        forward = seconds(lambda: model(images), times=5)
    labels = torch.randint(0, 2, (BATCH, SIDE, SIDE), generator=make_generator(0)).to(torch.uint8)
    batch = TrainingBatch(images, torch.zeros(BATCH, dtype=torch.int64), labels, torch.rand(BATCH, SIDE, SIDE))
    objective = PixelCAMObjective(load_params(Path("params.yaml")).train_pixelcam)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    generator = make_generator(0)

    def step() -> None:
        objective(model.train(), batch, generator).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    print(f"{name}: {BATCH / forward:.1f} images/s forward, {BATCH / seconds(step, times=3):.1f} in joint training")
    return model.eval()


def store(model: PixelCAM, patches: torch.Tensor) -> None:
    """Print bytes and time per image of a store of pseudo-labels from a model's maps."""
    params = load_params(Path("params.yaml")).extract_pseudo_labels
    with torch.inference_mode():
        cams = model(patches).pixel_logits[:, 1]
    low, high = cams.amin((1, 2), keepdim=True), cams.amax((1, 2), keepdim=True)
    cams = (cams - low) / (high - low)
    cut = seconds(lambda: make_pseudo_labels(resize_map(cams, (SIDE, SIDE)), params), times=5)
    labels = make_pseudo_labels(resize_map(cams, (SIDE, SIDE)), params).numpy()
    rows = [StoredImage(labels[i], cams[i].numpy().astype(np.float16), 0) for i in range(len(labels))]
    sizes = {"label_size": (SIDE, SIDE), "cam_size": (cams.shape[1], cams.shape[2])}
    ids = {"image_ids": [str(index) for index in range(len(rows))]}
    with tempfile.TemporaryDirectory() as folder:
        write = seconds(
            lambda: write_store(Path(folder), rows, image_count=len(rows), attributes=ids, **sizes), times=5
        )
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    per_image = 1000 / len(rows)
    print(f"store: {size / len(rows):.0f} bytes, {cut * per_image:.2f} ms to cut, {write * per_image:.2f} ms to write")


def evaluation(model: PixelCAM, *, images: int) -> None:
    """Print what scoring an image costs beside the forward pass, at a map size of 224."""
    localizer = PixelCAMLocalizer(model)
    pixels = torch.rand(BATCH, 3, SIDE, SIDE, generator=make_generator(0))
    masks = torch.rand(BATCH, SIDE // 32, SIDE // 32, generator=make_generator(1)) > 0.5
    masks = masks.repeat_interleave(32, 1).repeat_interleave(32, 2)
    found = localizer(pixels, torch.zeros(BATCH, dtype=torch.int64))

    def batch(number: int) -> EvaluationBatch:
        ids = tuple(f"{number}/{index}" for index in range(BATCH))
        return EvaluationBatch(
            image_ids=ids, images=pixels, class_idx=torch.arange(BATCH) % 2, masks=masks, has_mask=torch.ones(BATCH) > 0
        )

    def score(resamples: int) -> None:
        evaluate_domain(
            {ModelName.PIXELCAM: lambda *_: found},
            EvaluationDomain(name="d", classes=("a", "b"), batches=map(batch, range(images // BATCH))),
            fitted={ModelName.PIXELCAM: Fitted(Threshold(0.5, ThresholdSource.FIXED), 1.0)},
            map_size=SIDE,
            resampling=Resampling(resamples, 0),
            device=torch.device("cpu"),
        )

    print(
        f"evaluation: {1000 * seconds(lambda: score(1000), times=3) / images:.2f} ms an image beside the forward pass"
    )


def main(folder: Path) -> None:
    """Print every rate, with the images in FOLDER."""
    torch.set_num_threads(1)
    patches = patches_of(folder, count=64)
    print(f"{len(patches)} patches from {folder}")
    files(patches)
    loading(patches)
    images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float().div(255)
    model = networks("tf_efficientnet_lite0", images[:BATCH])
    networks("resnet50", images[:BATCH])
    store(model, images)
    evaluation(model, images=400)


if __name__ == "__main__":
    typer.run(main)
