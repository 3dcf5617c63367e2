import signal
import subprocess
import sys

import pytest

from rotoscope.cli import __main__ as cli
from rotoscope.cli.progress import stop_on_interrupt
from rotoscope.errors import InputError, PropagationError, TrainingError


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


@pytest.mark.parametrize("command", ["track", "correct", "detect", "train", "evaluate", "weights", "doctor"])
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run("--help") == 0
    assert command in capsys.readouterr().out


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("rotoscope 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["track", "--help"],
        ["correct", "--help"],
        ["detect", "--help"],
        ["train", "--help"],
        ["evaluate", "davis", "--help"],
        ["evaluate", "coco", "--help"],
        ["weights", "list", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from rotoscope.cli.__main__ import main; main(sys.argv[1:]);"
        "heavy = [m for m in ('torch', 'numpy', 'cv2', 'av', 'matplotlib') if m in sys.modules]; sys.exit(3 if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [["no-such-command"], ["track"], ["track", "clip.mp4", "--no-such-option"]])
def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(*arguments) == 2
    assert "Usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such\nfile"), 2, "rotoscope: error: no such file"),
        (PropagationError("frame 3"), 1, "rotoscope: error: frame 3"),
        (TrainingError("step 3"), 1, "rotoscope: error: step 3"),
        (RuntimeError("bug"), 1, "rotoscope: internal error: RuntimeError: bug"),
        (KeyboardInterrupt(), 130, "rotoscope: interrupted"),
    ],
)
def test_each_failure_is_one_line_and_its_exit_code(monkeypatch, capsys, error: BaseException, code: int, line: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert run("track") == code
    shown = capsys.readouterr().err.strip()
    assert shown.startswith(line)
    assert len(shown.splitlines()) == 1


def test_verbose_shows_the_trace_of_our_own_faults(monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setenv("ROTOSCOPE_TRACE", "1")
    with pytest.raises(RuntimeError):
        run("track")


def test_the_first_interrupt_is_noted_and_the_second_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)  # a background job of a shell ignores it
    with stop_on_interrupt() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
