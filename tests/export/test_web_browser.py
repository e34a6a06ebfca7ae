"""The page of a model in a real browser: the model's own values, any file that may come, keyboard, phone, policy."""

import base64
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from browsers import DESK, PHONE, needs_browser, start_browser
from exported_nets import pixelcam_network
from numpy.typing import NDArray
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, Playwright, expect
from tiny import Run

from pipeline.evaluation.prediction import Prediction, load_model
from pipeline.export.network import CLASS_MAPS
from pipeline.export.onnx_file import Exported, session_of, to_onnx
from pipeline.export.web import INDEX, write_web
from pipeline.params.config import load_params

RUNTIME = Path(__file__).parents[2] / "node_modules/onnxruntime-web"
pytestmark = [
    needs_browser,
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web: run 'npm ci'"),
]
WITHIN = 1e-3  # of what PyTorch says
KEEP_ANSWERS = "document.addEventListener('looked', (event) => { window.answer = event.detail; });"
BROKEN_GRAPHICS = """Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => ({
  info: {}, features: new Set(), limits: {}, requestDevice: async () => { throw new Error("lost"); },
}) } });"""
ANY_GRAPHICS = "Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', { get: () => false });"
SOFTWARE_GRAPHICS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
GIVE = """([name, base64, event]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  if (name) data.items.add(new File([bytes], name));
  const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
  document.body.dispatchEvent(event === "drop" ? new DragEvent("drop", options) : new ClipboardEvent("paste", options));
}"""


@pytest.fixture(scope="module")
def folder(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    write_web(made, model=exported.model, metadata=exported.metadata, runtime=RUNTIME)
    return made


class _Isolated(SimpleHTTPRequestHandler):
    """Serves files to a page that may share memory between threads, and notes what it is asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def do_POST(self) -> None:
        self.asked.append(self.path)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The address of the page on a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Isolated, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{INDEX}"
    server.shutdown()
    server.server_close()


@contextmanager
def opened(
    browser: Browser, address: str, *, size: tuple[int, int] = DESK, touch: bool = False, scripts: tuple[str, ...] = ()
) -> Iterator[Page]:
    """Open the page until its model is ready; errors of scripts, and requests beyond its folder, fail the test."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=touch)
    context.set_default_timeout(60_000)
    for script in (KEEP_ANSWERS, *scripts):
        context.add_init_script(script)
    page = context.new_page()
    failed: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda said: failed.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
    yield page
    context.close()
    assert failed == []
    own = address.removesuffix(INDEX)
    assert [url for url in requested if not url.startswith((own, "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page, opened by its file; several tests use it, one after the other."""
    with opened(browser, (folder / INDEX).as_uri()) as found:
        yield found


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return blobs on a gradient, uint8 (height, width, 3), which no turn or flip maps onto itself."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    blobs = np.exp(-((x - 0.2) ** 2 + (y - 0.3) ** 2) * 40) + np.exp(-((x - 0.7) ** 2 + (y - 0.1) ** 2) * 90)
    return np.stack([250 * x, 200 * blobs.clip(0, 1), 120 * y + 90 * x], axis=2).clip(0, 255).astype(np.uint8)


def answer(page: Page, file: Path) -> dict[str, Any]:
    """Give the page an image, and return the numbers that it shows."""
    page.evaluate("window.answer = null")
    page.set_input_files("#file", file)
    page.locator("#result").wait_for()
    for _ in range(600):
        said: dict[str, Any] | None = page.evaluate(
            "window.answer && { probabilities: answer.probabilities, map: Array.from(answer.map) }"
        )
        if said is not None:
            return said
        page.wait_for_timeout(50)
    raise AssertionError("the page gave no answer")


def expected(run: Run, image: NDArray[np.uint8]) -> Prediction:
    return load_model(run.pixelcam, params=load_params(run.params)).predict([image])[0]


def furthest(said: dict[str, Any], right: Prediction) -> float:
    """Return the largest difference of any probability or map value."""
    classes = np.abs(np.array(said["probabilities"]) - list(right.probabilities.values()))
    pixels = np.abs(np.array(said["map"]).reshape(right.map.shape) - right.map)
    return float(max(classes.max(), pixels.max()))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "wide.png"
    Image.fromarray(picture(75, 131)).save(path)
    return path


@pytest.mark.parametrize("shape", [(75, 131), (64, 64), (300, 40)], ids=str)
def test_values_are_those_of_pytorch(page: Page, finished: Run, tmp_path: Path, shape: tuple[int, int]) -> None:
    Image.fromarray(picture(*shape)).save(tmp_path / "image.png")
    right = expected(finished, picture(*shape))
    assert furthest(answer(page, tmp_path / "image.png"), right) < WITHIN
    assert page.locator("#class").inner_text() == right.class_name
    assert page.locator("#confidence").inner_text() == f"{100 * max(right.probabilities.values()):.1f} %"
    assert page.locator("#share").inner_text() == f"{100 * (right.map >= 0.3).mean():.1f} %"
    assert "on the processor (WebAssembly)" in (page.locator("#engine").text_content() or "")


def test_a_server_and_threads_change_nothing(browser: Browser, served: str, finished: Run, file: Path) -> None:
    with opened(browser, served) as page:
        assert page.evaluate("crossOriginIsolated")
        assert furthest(answer(page, file), expected(finished, picture(75, 131))) < WITHIN


def test_nothing_leaves_the_page(browser: Browser, served: str) -> None:
    page = browser.new_page()
    page.goto(served)
    _Isolated.asked.clear()
    assert page.evaluate("fetch('/fetched').then(() => 'sent', () => 'refused')") == "refused"
    page.evaluate("navigator.sendBeacon('/beacon', 'pixels')")
    page.evaluate("document.body.append(Object.assign(new Image(), { src: '/image?pixels' }))")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { src: '/script?pixels' }))")
    page.wait_for_timeout(300)
    assert [path for path in _Isolated.asked if not path.startswith("/files/")] == []
    page.close()


@pytest.mark.slow
def test_a_graphics_processor_gives_the_same_values(
    playwright: Playwright, served: str, finished: Run, file: Path
) -> None:
    browser = start_browser(playwright, *SOFTWARE_GRAPHICS)
    with opened(browser, served, scripts=(ANY_GRAPHICS,)) as page:
        if not page.evaluate("navigator.gpu.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no WebGPU")
        assert "graphics processor" in (page.locator("#engine").text_content() or "")
        assert furthest(answer(page, file), expected(finished, picture(75, 131))) < WITHIN
    browser.close()


def test_where_the_graphics_processor_fails_the_processor_answers(
    browser: Browser, folder: Path, finished: Run, file: Path
) -> None:
    with opened(browser, (folder / INDEX).as_uri(), scripts=(BROKEN_GRAPHICS,)) as page:
        assert "on the processor (WebAssembly)" in (page.locator("#engine").text_content() or "")
        assert furthest(answer(page, file), expected(finished, picture(75, 131))) < WITHIN


def test_a_photograph_that_was_turned_comes_upright(page: Page, finished: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    turned = tmp_path / "phone.jpg"
    Image.fromarray(picture(96, 160)).save(turned, exif=exif, quality=95, subsampling=0)
    with Image.open(turned) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
        assert upright.shape == (160, 96, 3)
    assert furthest(answer(page, turned), expected(finished, upright)) < 0.01  # decoders of JPEG may differ a little


def _broken_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return files that are no pictures for this page, by name, each with a part of what it is to say."""
    Image.fromarray(picture(75, 131)).save(folder / "whole.png")
    Image.new("1", (8000, 8000)).save(folder / "huge.png")
    Image.new("RGB", (12, 40)).save(folder / "tiny.png")
    Image.new("RGB", (40, 40)).save(folder / "scan.tif")
    return {
        "huge.png": ((folder / "huge.png").read_bytes(), "has 64 megapixels, and this page takes up to 50"),
        "tiny.png": ((folder / "tiny.png").read_bytes(), "has 12 × 40 pixels; there must be at least 16 on each side"),
        "cut.png": ((folder / "whole.png").read_bytes()[:2000], "cannot be read as a picture"),
        "text.jpg": (b"no picture at all", "cannot be read as a picture"),
        "empty.png": (b"", "is empty, or a folder"),
        "paper.pdf": (b"%PDF-1.7", "is a PDF, not a picture. Save what you mean as PNG or JPEG."),
        "scan.tif": ((folder / "scan.tif").read_bytes(), "is a TIFF or a whole slide"),
        "<img src=x onerror=alert(1)>.png": (b"hostile", "cannot be read as a picture"),
        "": (b"", "That was no file."),
    }


def test_whatever_is_no_picture_gets_a_sentence_and_the_next_picture_works(
    page: Page, file: Path, tmp_path: Path
) -> None:
    alarm = page.get_by_role("alert")
    for number, (name, (content, said)) in enumerate(_broken_files(tmp_path).items()):
        event = "drop" if number % 2 else "paste"
        page.evaluate(GIVE, [name, base64.b64encode(content).decode("ascii"), event])
        expect(alarm).to_contain_text(f"“{name}” {said}" if name else said)
        assert not page.locator("#result").is_visible()
    answer(page, file)
    assert not alarm.is_visible()
    assert page.locator("img").count() == 0


def test_pictures_can_be_dropped_and_pasted(page: Page, file: Path) -> None:
    for event in ("drop", "paste"):
        page.evaluate(GIVE, [f"{event}.png", base64.b64encode(file.read_bytes()).decode("ascii"), event])
        expect(page.locator("#status")).to_contain_text(f"{event}.png, 131 × 75 pixels")


def test_sliders_move_by_keyboard_and_say_what_they_do(page: Page, file: Path) -> None:
    heat = np.array(answer(page, file)["map"])
    threshold = page.get_by_role("slider", name="Threshold")
    share = page.locator("#share")
    back = page.get_by_role("button", name="Back to 0.300")
    back.click()  # from wherever another test left it
    before = share.inner_text()
    threshold.focus()
    page.keyboard.press("Home")
    expect(share).to_have_text("100.0 %")
    page.keyboard.press("End")
    expect(page.locator("#cut")).to_have_text("1.000")
    cut = float(np.median(heat))
    threshold.fill(str(cut))
    expect(share).to_have_text(f"{100 * (heat >= cut).mean():.1f} %")
    assert threshold.get_attribute("aria-valuetext") == f"{cut:.3f}, {share.inner_text()} of the image"
    back.press("Enter")
    expect(share).to_have_text(before)
    page.get_by_role("slider", name="Opacity").press("Home")
    expect(page.locator("#heat")).to_have_css("opacity", "0")
    expect(page.get_by_role("img", name="wide.png under its map; outlined:")).to_be_visible()


def test_the_outline_runs_where_the_map_crosses_the_threshold(page: Page, file: Path) -> None:
    said = np.array(answer(page, file)["map"]).reshape(75, 131)
    page.get_by_role("slider", name="Threshold").fill(str(float(np.median(said))))
    expect(page.locator("#cut")).to_have_text(f"{np.median(said):.3f}")  # said when it is drawn
    width, height, alpha = page.evaluate(
        "(({ width, height }) => [width, height, Array.from(outline.getContext('2d')"
        ".getImageData(0, 0, width, height).data.filter((_, at) => at % 16 === 3))])(outline)"
    )
    drawn = np.array(alpha).reshape(height, width // 4) > 0  # every fourth pixel of a row
    assert (width, height) == (1200, 687)
    far = np.abs(said - np.median(said)) > 0.25 * np.ptp(said)  # from the threshold
    rows, columns = np.arange(height) * 75 // height, np.arange(0, width, 4) * 131 // width
    assert drawn.any()
    assert not drawn[far[np.ix_(rows, columns)]].any()
    seen = np.asarray(Image.open(BytesIO(page.locator("#stack").screenshot())).convert("RGB"))
    assert (seen.min(axis=2) > 240).sum() > 200, "its white lies over the map"


@pytest.mark.slow
def test_the_map_of_each_class_can_be_chosen(browser: Browser, exported: Exported, file: Path, tmp_path: Path) -> None:
    model = to_onnx(pixelcam_network(pixel_classes=3)).SerializeToString()
    maps = session_of(model)(picture(75, 131))[CLASS_MAPS]
    cut = float(np.median(maps))
    write_web(tmp_path, model=model, metadata=exported.metadata | {"threshold": cut}, runtime=RUNTIME)
    shares = [f"{100 * (heat >= cut).mean():.1f} %" for heat in maps]
    assert shares[0] != shares[1], "or the test would not notice which map is shown"
    with opened(browser, (tmp_path / INDEX).as_uri()) as page:
        answer(page, file)
        for name, share in zip(exported.metadata["classes"], shares, strict=True):
            page.get_by_role("combobox", name="Of").select_option(name)
            expect(page.locator("#share")).to_have_text(share)


def test_all_controls_are_reached_by_tab(page: Page, file: Path) -> None:
    answer(page, file)
    page.locator("#choose").focus()
    names = []
    for _ in range(5):
        names.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert names == ["choose", "opacity", "threshold", "back", "SUMMARY"]


def test_a_phone_can_take_a_photograph_and_nothing_scrolls_sideways(browser: Browser, folder: Path, file: Path) -> None:
    with opened(browser, (folder / INDEX).as_uri(), size=PHONE, touch=True) as page:
        assert page.locator("#camera").get_attribute("capture") == "environment"
        answer(page, file)
        page.get_by_text("About this model").click()
        too_wide = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('section, .stack, .panel, details, dl')]"
            ".filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.id || one.tagName)"
        )
        assert too_wide == []


def test_what_is_missing_or_wrong_in_the_folder_is_said(browser: Browser, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    html = (copy / INDEX).read_text(encoding="utf-8")
    (copy / INDEX).write_text(html.replace('"tolerance": 0.001', '"tolerance": -1'), encoding="utf-8")
    page = browser.new_page()
    page.goto((copy / INDEX).as_uri())
    expect(page.get_by_role("alert")).to_contain_text("the model is off by", timeout=60_000)
    (piece,) = (copy / "files").glob("model.*.0.js")
    piece.unlink()
    page.goto((copy / INDEX).as_uri())
    expect(page.get_by_role("alert")).to_contain_text(f"files/{piece.name} is missing beside this page", timeout=60_000)
    page.close()
