"""At the terminal: errors are sentences with exit code 1, other faults stay loud, and bars stay out of files."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.commands.cli import app as pixelcam
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import progress, progress_bar, reporting_errors, run, say


def test_an_error_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    @reporting_errors
    def fail() -> None:
        raise PixelCAMError("a.png: is broken; restore it")

    with pytest.raises(typer.Exit) as caught:
        fail()
    assert caught.value.exit_code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: a.png: is broken; restore it\n"


def test_other_exceptions_keep_their_traceback() -> None:
    @reporting_errors
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_wrapped_function_keeps_its_signature_and_runs() -> None:
    seen: list[int] = []

    @reporting_errors
    def main(number: int) -> None:
        """Do it."""
        seen.append(number)

    main(3)
    assert seen == [3]
    assert (main.__name__, main.__doc__) == ("main", "Do it.")


def test_run_makes_a_program_of_a_function(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, Path]] = []

    def main(name: str, folder: Path) -> None:
        """Put NAME into FOLDER."""
        seen.append((name, folder))

    def call(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["stage", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(main)
        return caught.value.code

    assert call("colon", "data/x") == 0
    assert seen == [("colon", Path("data/x"))]
    assert call("colon") == 2
    assert call("--help") == 0
    assert "Put NAME into FOLDER." in capsys.readouterr().out


def test_progress_is_silent_where_no_one_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("abc"), label="letters", total=3)) == ["a", "b", "c"]
    with progress_bar(label="by hand", total=2) as bar:
        bar.update()
        bar.set_postfix({"loss": "0.5"})
    assert capsys.readouterr() == ("", "")


def test_say_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_errors_and_output_do_not_mix() -> None:
    app = typer.Typer()

    @app.command()
    @reporting_errors
    def main() -> None:
        typer.echo("result")
        raise PixelCAMError("fault")

    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    assert result.stdout == "result\n"


def _fail() -> None:
    """Fail."""
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise PixelCAMError("a.png: is broken; restore it") from error


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [([], None, False), (["--debug"], None, True), ([], "1", True), ([], "0", False)],
)
def test_debug_shows_the_traceback_before_the_same_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: str | None,
    shown: bool,
) -> None:
    monkeypatch.setattr("sys.argv", ["stage", *arguments])
    monkeypatch.delenv("PIXELCAM_DEBUG", raising=False)
    if environment is not None:
        monkeypatch.setenv("PIXELCAM_DEBUG", environment)
    with pytest.raises(SystemExit) as caught:
        run(_fail)
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("error: a.png: is broken; restore it\n")
    assert ("Traceback (most recent call last)" in err) is shown
    assert ("KeyError: 'cause'" in err) is shown  # the cause too
    assert (err.count("\n") == 1) is not shown


def test_every_command_and_stage_has_the_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PIXELCAM_DEBUG", raising=False)
    for command in pixelcam.registered_commands:
        assert command.callback is not None
        name = command.callback.__name__.replace("_", "-")
        result = CliRunner().invoke(pixelcam, [name, "--help"], env={"COLUMNS": "120"})
        assert "--debug" in result.stdout
    result = CliRunner().invoke(pixelcam, ["results", "--debug", "--scores", str(tmp_path / "gone.json")])
    assert result.exit_code == 1
    assert "FileNotFoundError" in result.stderr
    assert "gone.json: cannot be read as scores" in result.stderr
