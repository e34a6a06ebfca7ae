"""The local page against whoever is not its own browser, and against names that are no plain names."""

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from local_page import ORIGIN, PORT, TOKEN, client_of, write_prepared
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from pipeline.params.errors import PixelCAMError
from pipeline.viewer.security import Guard
from pipeline.viewer.server import listen

HOSTILE = "<img src=x onerror=alert(1)>\"'&.png"
WAYS_OUT = ["../../params.yaml", "/etc/passwd", "a.png/../../../params.yaml", "..\\..\\params.yaml", "", "b.png"]


@pytest.fixture
def guarded() -> TestClient:
    return TestClient(Guard(PlainTextResponse("inside"), port=PORT, token=TOKEN), base_url=ORIGIN)


def test_only_the_token_opens_and_is_then_a_cookie_that_no_script_reads(guarded: TestClient) -> None:
    for address in ("/", "/?token=", "/?token=other", f"/?other={TOKEN}", f"/?token={TOKEN}x"):
        assert guarded.get(address).status_code == 403
    assert guarded.get("/", headers={"Cookie": f"pixelcam_{PORT}=other"}).status_code == 403
    assert guarded.get("/", headers={"Cookie": f"pixelcam_{PORT + 1}={TOKEN}"}).status_code == 403
    welcome = guarded.get(f"/?token={TOKEN}")
    said = welcome.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "inside" not in welcome.text
    assert guarded.get("/").text == "inside"


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", f"127.0.0.1:{PORT + 1}", "127.0.0.1", f"127.0.0.1.evil.example:{PORT}"],
)
def test_other_names_of_this_machine_are_refused_even_with_the_token(guarded: TestClient, host: str) -> None:
    assert guarded.get(f"/?token={TOKEN}").status_code == 200
    assert guarded.get("/", headers={"Host": host}).status_code == 403
    assert guarded.get(f"/?token={TOKEN}", headers={"Host": host}).status_code == 403
    assert guarded.get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", f"http://127.0.0.1:{PORT + 1}", f"https{ORIGIN[4:]}"]
)
def test_a_change_comes_from_the_page_itself(guarded: TestClient, origin: str | None) -> None:
    guarded.get(f"/?token={TOKEN}")
    assert guarded.post("/", headers={} if origin is None else {"Origin": origin}).status_code == 403
    assert guarded.post("/", headers={"Origin": ORIGIN}).text == "inside"


def test_other_methods_are_refused(guarded: TestClient) -> None:
    guarded.get(f"/?token={TOKEN}")
    assert {guarded.request(method, "/").status_code for method in ("PUT", "DELETE", "OPTIONS", "PATCH")} == {405}


def test_every_answer_forbids_foreign_and_inline_code(guarded: TestClient) -> None:
    for answer in (guarded.get("/"), guarded.get(f"/?token={TOKEN}"), guarded.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer", "the first address holds the token"


def test_no_other_machine_reaches_it_and_a_port_in_use_is_told() -> None:
    with listen(0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(PixelCAMError, match=rf"port {port} cannot be used .*leave --port out"):
            listen(port)


@pytest.mark.parametrize("image", WAYS_OUT)
def test_an_id_is_none_but_those_of_the_manifest(tmp_path: Path, image: str) -> None:
    site = write_prepared(tmp_path, ["a.png"])
    (tmp_path / "params.yaml").write_text("secret: 1", encoding="utf-8")
    client = client_of(site)
    addresses = (
        "/image",
        "/api/thumbnail",
        "/api/labels",
        *(f"/api/layer/{name}" for name in ("image", "cam", "mask")),
    )
    for address in addresses:
        answer = client.get(address, params={"in": "test-home", "image": image})
        assert answer.status_code == 404
        assert "secret" not in answer.text
    assert client.get("/api/thumbnail", params={"in": "../home", "image": "a.png"}).status_code == 404
    assert client.get("/api/thumbnail", params={"in": "test-home", "image": "a.png"}).status_code == 200


@pytest.mark.parametrize("name", ["..%2fapp.py", "%2e%2e/app.py", "..%5capp.py", "app.py", "%2fetc%2fpasswd"])
def test_no_file_is_served_but_those_of_the_page(tmp_path: Path, name: str) -> None:
    client = client_of(write_prepared(tmp_path, ["a.png"]))
    assert client.get(f"/static/{name}").status_code == 404
    assert client.get("/static/view.js").headers["content-type"].startswith("text/javascript")


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    client = client_of(write_prepared(tmp_path, [HOSTILE], patient="<b>P1</b>"))
    client.post("/api/review", json={"domain": "home", "image": HOSTILE, "verdict": "leave_out", "note": "<i>bad</i>"})
    texts = [
        client.get(address, params={"in": "test-home", "image": HOSTILE, "find": "<u>"}).text
        for address in ("/", "/images/test-home", "/image", "/review")
    ]
    for text in (*texts, client.get("/images/test-home").text):
        assert not any(markup in text for markup in ("<img src=x", "<b>P1", "<i>bad", "<u>", "\"'&.png"))
    assert "&lt;img src=x onerror=alert(1)&gt;" in texts[2]


def test_what_is_no_change_is_refused_and_nothing_written(tmp_path: Path) -> None:
    site = write_prepared(tmp_path, ["a.png"])
    client = client_of(site)
    good: dict[str, object] = {
        "domain": "home",
        "image": "a.png",
        "verdict": "corrected",
        "label": "malignant",
        "note": "",
    }
    bad: list[tuple[dict[str, object], str]] = [
        (good | {"image": "../a.png"}, "no such image"),
        (good | {"domain": "away"}, "no such image"),
        (good | {"verdict": "delete"}, "verdict"),
        (good | {"label": "benign"}, "another class"),
        (good | {"label": "other"}, "another class"),
        (good | {"label": ""}, "label"),
        (good | {"verdict": "leave_out"}, "label"),
        (good | {"note": "a\nb"}, "control characters"),
        (good | {"note": "a" * 1001}, "at most 1000"),
        (good | {"note": "a" * 20_000}, "at most 16384"),
        (good | {"note": 1}, "texts"),
    ]
    for values, reason in bad:
        answer = client.post("/api/review", json=values)
        assert answer.status_code in (404, 422)
        assert reason in answer.json()["error"]
    assert client.post("/api/review", content=b"\xff{").json()["error"].startswith("expected JSON")
    assert client.post("/api/review", json=[]).json()["error"] == "expected a JSON object"
    assert not site.files.review.exists()
    assert client.post("/api/review", json=good).json()["count"] == 1
