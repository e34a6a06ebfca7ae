"""A teacher as a localizer: its views lie on each other, and its logits are those of the image as it is."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from tiny import Run
from torch import Tensor
from torch.nn.functional import interpolate, pad

from pipeline.cams.methods import compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.encoders.encoder import build_encoder
from pipeline.models.loading import TeacherLocalizer
from pipeline.models.teacher import Teacher, build_teacher, load_teacher
from pipeline.params.config import CamParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, EncoderWeights, ImageHeadName

CLASS_IDX = torch.tensor([1, 0])


def make_teacher(name: str = "test_efficientnet") -> Teacher:
    encoder = build_encoder(name, input_size=64, output_stride=16, weights=EncoderWeights.RANDOM, seed=0)
    return build_teacher(encoder, image_head=ImageHeadName.GAP, classes=2, seed=0).eval()


def cam_params(
    *, scales: tuple[float, ...] = (1.0,), symmetries: Literal[1, 2, 4, 8] = 1, margin: float = 0.0
) -> CamParams:
    return CamParams(method=CamMethod.CAM, layers=(-1,), scales=scales, symmetries=symmetries, margin=margin)


def make_images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def plain_cam(teacher: Teacher, images: Tensor) -> Tensor:
    return compute_cam(teacher.encoder, teacher.image_head, images, CLASS_IDX, method=CamMethod.CAM)[0]


def test_one_view_is_the_cam_itself() -> None:
    teacher, images = make_teacher(), make_images()
    found = TeacherLocalizer(teacher, cam_params())(images, CLASS_IDX)
    assert torch.equal(found.maps, plain_cam(teacher, images))
    with torch.inference_mode():
        assert torch.equal(found.image_logits, teacher(images).image_logits)


def test_mirrored_cam_is_mirrored_back() -> None:
    teacher, images = make_teacher(), make_images()
    found = TeacherLocalizer(teacher, cam_params(symmetries=2))(images, CLASS_IDX)
    mean = (plain_cam(teacher, images) + plain_cam(teacher, images.flip(-1)).flip(-1)) / 2
    torch.testing.assert_close(found.maps, normalize_cam(mean))


def test_mirrored_images_give_mirrored_maps_where_both_views_count() -> None:
    localizer = TeacherLocalizer(make_teacher(), cam_params(symmetries=2))
    images = make_images()
    maps, mirrored = localizer(images, CLASS_IDX).maps, localizer(images.flip(-1), CLASS_IDX).maps
    torch.testing.assert_close(mirrored, maps.flip(-1))


def test_scales_are_averaged_on_the_finest_grid() -> None:
    teacher, images = make_teacher(), make_images()
    found = TeacherLocalizer(teacher, cam_params(scales=(0.5, 1.0, 2.0)))(images, CLASS_IDX)
    small = interpolate(images, size=(32, 48), mode="bilinear", antialias=True)
    large = interpolate(images, size=(128, 192), mode="bilinear")
    assert plain_cam(teacher, small).shape[-2:] == (2, 3)
    cams = [
        interpolate(plain_cam(teacher, view).unsqueeze(1), size=(8, 12), mode="bilinear").squeeze(1)
        for view in (small, images, large)
    ]
    torch.testing.assert_close(found.maps, normalize_cam(sum(cams, torch.zeros(2, 8, 12)) / 3))


def test_logits_are_of_the_image_at_its_own_size() -> None:
    teacher, images = make_teacher(), make_images()
    found = TeacherLocalizer(teacher, cam_params(scales=(2.0,), symmetries=2))(images, CLASS_IDX)
    with torch.inference_mode():
        assert torch.equal(found.image_logits, teacher(images).image_logits)


def test_teacher_is_put_into_evaluation_mode() -> None:
    teacher = make_teacher()
    TeacherLocalizer(teacher.train(), cam_params())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize(
    ("name", "scale"),
    [("test_vit", 0.9), ("test_efficientnet", 0.001)],
)
def test_scale_that_the_encoder_does_not_take_is_named(name: str, scale: float) -> None:
    localizer = TeacherLocalizer(make_teacher(name), cam_params(scales=(1.0, scale)))
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(
        PixelCAMError, match=rf"cam\.scales: the encoder takes no images at scale {scale} .*use \[1\.0\]"
    ):
        localizer(images, CLASS_IDX)


def test_fault_at_the_images_own_size_is_no_fault_of_the_scales() -> None:
    localizer = TeacherLocalizer(make_teacher("test_vit"), cam_params())
    with pytest.raises(AssertionError, match="divisible"):
        localizer(torch.rand(2, 3, 60, 60), CLASS_IDX)


def test_loaded_teacher_is_ready_for_evaluation(finished: Run) -> None:
    teacher, info = load_teacher(finished.teacher)
    assert not any(module.training for module in teacher.modules())
    assert info.classes == ("benign", "malignant")
    assert teacher.image_head.name is info.image_head is ImageHeadName.GAP
    assert teacher.image_head.classes == 2


def test_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"model\.json: cannot be read .*train it again"):
        load_teacher(tmp_path)


def test_larger_images_serve_larger_views_with_their_own_detail() -> None:
    teacher = make_teacher()
    localizer = TeacherLocalizer(teacher, cam_params(scales=(1.0, 2.0)), image_scale=2.0)
    large = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    small = interpolate(large, size=(64, 96), mode="bilinear", antialias=True)
    found = localizer(large, CLASS_IDX)
    coarse = interpolate(plain_cam(teacher, small).unsqueeze(1), size=(8, 12), mode="bilinear").squeeze(1)
    torch.testing.assert_close(found.maps, normalize_cam((coarse + plain_cam(teacher, large)) / 2))
    with torch.inference_mode():
        torch.testing.assert_close(found.image_logits, teacher(small).image_logits)


def test_a_cam_with_a_margin_is_cut_and_stretched_again() -> None:
    teacher, images = make_teacher(), make_images()
    found = TeacherLocalizer(teacher, cam_params(margin=0.34))(images, CLASS_IDX)
    wide = plain_cam(teacher, pad(images, (32, 32, 32, 32), mode="reflect"))
    torch.testing.assert_close(found.maps, normalize_cam(wide[:, 2:-2, 2:-2]))
    assert found.maps.shape == (2, 4, 6)
    with torch.inference_mode():
        assert torch.equal(found.image_logits, teacher(images).image_logits)
