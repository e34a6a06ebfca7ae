"""CAM extraction by the method `cam` against the bare forward pass of the same classifier."""

from collections.abc import Iterator

import torch

from benchmarks.networks import CLASSES, Classifier, make_teacher, some_images
from benchmarks.outcome import Outcome, cost
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side
from pipeline.cams.methods import compute_cam
from pipeline.params.vocabulary import CamMethod


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the cost for each encoder.

    Raises:
        ValueError: the logits beside the CAMs are not those of the forward pass.
    """
    device, count = settings.fabric.device, settings.extraction_batch
    for name in settings.encoders:
        classifier = Classifier(make_teacher(name, input_size=settings.input_size)).eval().to(device)
        images = some_images(count, settings.input_size).to(device)
        class_idx = (torch.arange(count) % CLASSES).to(device)

        def read(classifier: Classifier = classifier, images: torch.Tensor = images) -> torch.Tensor:
            return compute_cam(classifier.encoder, classifier.head, images, class_idx, method=CamMethod.CAM)[1]  # noqa: B023 - the same for all

        def forward(classifier: Classifier = classifier, images: torch.Tensor = images) -> torch.Tensor:
            with torch.inference_mode():
                return classifier(images)  # type: ignore[no-any-return]

        if not torch.allclose(read(), forward(), rtol=1e-4, atol=1e-4):
            raise ValueError(f"{name}: the logits beside CAMs differ from those of the forward pass")
        times = side_by_side(read, forward, rounds=settings.rounds(5), device=device)
        yield cost(
            "cam_reading", f"{name}, batch {count}", "CAM by method cam", "bare forward pass", times=times, target=1.03
        )
