import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from slide_files import Picture, glass, stained, write_slide

from pipeline.params.errors import PixelCAMError
from pipeline.slides import reading
from pipeline.slides.reading import Slide, fingerprint, open_slide


@pytest.fixture(scope="module")
def picture() -> Picture:
    return stained(glass(600, 800), 100, 120, 400, 520)


@pytest.fixture(scope="module")
def path(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "a.tif", picture)


def test_a_slide_says_its_size_and_its_mpp(path: Path) -> None:
    with Slide(path) as slide:
        assert slide.size == (800, 600)
        assert slide.mpp == pytest.approx(0.5)


def test_what_is_given_overrules_the_file(path: Path) -> None:
    assert Slide(path, mpp=0.25).mpp == 0.25


def test_pixels_of_level_0_come_as_they_are(path: Path, picture: Picture) -> None:
    with Slide(path) as slide:
        part = slide.read((150, 90), size=(64, 48), downsample=1.0)
    assert np.array_equal(part, picture[90:138, 150:214])


def test_outside_is_white(path: Path) -> None:
    with Slide(path) as slide:
        part = slide.read((780, 580), size=(40, 40), downsample=1.0)
    assert (part[20:] == 255).all()
    assert (part[:, 20:] == 255).all()
    assert (part[:20, :20] == 243).all()


def test_a_part_as_coarse_as_a_level_has_its_pixels(path: Path, picture: Picture) -> None:
    with Slide(path) as slide:
        same = slide.read((160, 120), size=(50, 40), downsample=4.0)
    whole = picture[: 4 * 150, : 4 * 200].reshape(150, 4, 200, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    assert np.array_equal(same, whole[30:70, 40:90])


def test_between_levels_a_ramp_stays_where_it_was(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (128, 256, 3)).copy()
    with Slide(write_slide(tmp_path / "ramp.tif", ramp)) as slide:
        part = slide.read((20.5, 8), size=(40, 20), downsample=2.5)
    # The first pixel reaches from 20.5 to 23; its middle is 21.75, a quarter right of the middle of the pixel of 21.
    assert np.abs(part - (21.25 + 2.5 * np.arange(40))[:, None]).max() <= 0.25


def test_whole_pixels_are_averaged(path: Path, picture: Picture) -> None:
    with Slide(path) as slide:
        halved = slide.read((160, 120), size=(100, 80), downsample=2.0)
    fine = picture[120:280, 160:360].reshape(80, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - fine).max() <= 0.5


def test_what_was_not_scanned_has_the_colour_of_the_ground(path: Path) -> None:
    with Slide(path) as slide:
        slide._ground = (10, 20, 30)
        part = slide.read((780, 580), size=(40, 40), downsample=1.0)
    assert (part[20:] == (10, 20, 30)).all()
    assert (part[:20, :20] == 243).all()


def test_a_level_whose_downsampling_is_rounded_is_taken_for_what_was_asked(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "odd.tif", stained(glass(1021, 1021), 0, 0, 1021, 1021))
    with Slide(path) as slide:
        assert slide._downsamples[1] > 4.0
        with patch.object(slide._file, "read_region", wraps=slide._file.read_region) as read:
            slide.read((0, 0), size=(50, 50), downsample=4.0)
    assert [call.args[1] for call in read.call_args_list] == [1]


def test_a_shift_of_a_part_shifts_its_pixels(path: Path) -> None:
    with Slide(path) as slide:
        one = slide.read((160, 120), size=(60, 60), downsample=2.5)
        other = slide.read((160 + 2.5 * 20, 120), size=(40, 60), downsample=2.5)
    assert np.abs(one[:, 21:].astype(int) - other[:, 1:]).max() <= 2


def test_a_thumbnail_shows_the_whole_slide(path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    with Slide(path) as slide:
        whole = slide.thumbnail(mpp=2.0)
        monkeypatch.setattr(reading, "BLOCK", 64)
        pieces = slide.thumbnail(mpp=2.0)
    assert whole.shape == (150, 200, 3)
    assert np.array_equal(whole, pieces)
    assert np.abs(whole[30:120, 40:150].mean() - picture[120:480, 160:600].mean()) < 1


def test_a_slide_without_mpp_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", glass(256, 256), mpp=None)
    with pytest.raises(PixelCAMError, match=r"a\.tif.*column mpp"):
        Slide(path)


def test_pixels_that_are_no_squares_are_refused() -> None:
    with pytest.raises(PixelCAMError, match=r"0\.25 x 0\.5"):
        reading._mean_side(["0.25", "0.5"], path=Path("a.tif"))


@pytest.mark.parametrize("content", [b"", b"not a slide at all", b"II*\x00\x08\x00\x00\x00"])
def test_a_file_that_is_no_slide_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(content)
    with pytest.raises(PixelCAMError, match=r"a\.svs.*(is no slide|cannot be opened)"):
        Slide(path)


def test_a_missing_slide_is_named(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match="there is no such slide"):
        Slide(tmp_path / "a.svs")


def test_a_truncated_slide_is_named_where_it_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_slide(tmp_path / "a.tif", rng.integers(0, 255, (1024, 1024, 3), dtype=np.uint8), downsamples=(1,))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PixelCAMError, match=r"a\.tif.*(damaged|cannot be opened|is no slide)"), Slide(path) as slide:
        slide.thumbnail(mpp=4.0)


def test_a_fingerprint_is_of_the_content(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.tif"
    shutil.copy(path, copy)
    assert fingerprint(copy) == fingerprint(path)
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert fingerprint(copy) != fingerprint(path)


def test_a_slide_that_has_changed_is_not_read(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.tif"
    shutil.copy(path, copy)
    assert open_slide(copy, fingerprint(path)) is open_slide(copy, fingerprint(path))
    copy.write_bytes(copy.read_bytes() + b"x")
    open_slide.cache_clear()
    with pytest.raises(PixelCAMError, match="has changed since it was prepared"):
        open_slide(copy, fingerprint(path))


def test_a_slide_of_one_level_is_read_as_one_of_two(picture: Picture, path: Path, tmp_path: Path) -> None:
    one = write_slide(tmp_path / "one.tif", picture, downsamples=(1,))
    with Slide(one) as single, Slide(path) as pyramid:
        parts = [slide.read((160, 120), size=(100, 90), downsample=4.0) for slide in (single, pyramid)]
        tops = [slide.thumbnail(mpp=4.0) for slide in (single, pyramid)]
    for first, second in (parts, tops):
        assert np.abs(first[2:-2, 2:-2].astype(int) - second[2:-2, 2:-2]).mean() < 5
