"""The command line."""

import re
import sys

import numpy as np
import pytest

from cytconv import _demo, _runtime
from cytconv.__main__ import main


def demo(*arguments):
    return main(["demo", *map(str, arguments)])


@pytest.fixture
def image(tmp_path):
    """A small photograph of random numbers, with odd sizes."""
    pillow = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (41, 31), np.uint8)
    pillow.fromarray(pixels).save(path)
    return path


def assert_only(image):
    """Nothing else was left beside the image."""
    assert list(image.parent.iterdir()) == [image]


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_numbers(image, factor, capsys):
    output = image.with_name("figure.png")
    assert demo(image, "--factor", factor, "--output", output) == 0
    text = capsys.readouterr().out
    assert "40 x 30 -> 20 x 15 " in text
    assert "20 x 15 -> 40 x 30 " in text
    assert f"40 x 30 -> {40 * factor} x {30 * factor} " in text
    assert f"1200 of 1200 regions of {factor} x {factor} " in text
    left, right = (float(number) for number in re.findall(r"^<.*?>\s+(\S+)", text, re.MULTILINE))
    assert left == pytest.approx(right, rel=1e-12)
    differences = [
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(("down", "up ")) and " ms" in line
    ]
    assert len(differences) == 2
    assert max(differences) < 1e-14
    assert max(len(line.removeprefix(f"figure            {output}")) for line in text.splitlines()) <= 120
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("function", ["conv", "conv_transpose", "conv_transpose_adjoint"])
def test_wrong_numbers_are_an_error(image, function, monkeypatch, capsys):
    right = getattr(_demo, function)
    monkeypatch.setattr(_demo, function, lambda *args, **kwargs: right(*args, **kwargs) * 1.001)
    assert demo(image, "--output", image.with_name("figure.png")) == 2
    assert "wrong numbers" in capsys.readouterr().err
    assert_only(image)


def test_photograph_by_default(tmp_path, monkeypatch, capsys):
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert demo() == 0
    assert "307200 of 307200 regions of 4 x 4" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["cytconv_demo.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_any_kind_of_image(mode, image, capsys):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new(mode, (8, 6)).save(image)
    assert demo(image, "--output", image.with_name("figure.png")) == 0
    assert "6 x 8 pixels" in capsys.readouterr().out


def refused(capsys, *arguments):
    """The message of a demonstration that has to fail, which is one line."""
    assert demo(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("factor", [0, -3])
def test_factor_too_small(image, factor, capsys):
    output = image.with_name("figure.png")
    assert f"factor={factor} must be at least 1" in refused(capsys, image, "--factor", factor, "--output", output)
    assert_only(image)


def test_factor_too_large(image, capsys):
    output = image.with_name("figure.png")
    assert "factor=100000 makes 4000000 x 3000000" in refused(capsys, image, "--factor", 100000, "--output", output)
    assert_only(image)


def test_factor_not_a_number(capsys):
    with pytest.raises(SystemExit, match="2"):
        demo("--factor", "two")
    assert "argument --factor: invalid int value: 'two'" in capsys.readouterr().err


def test_unreadable_image(image, capsys):
    output = image.with_name("figure.png")
    assert "cannot be read" in refused(capsys, image.with_name("absent.png"), "--output", output)
    assert "cannot be read" in refused(capsys, image.parent, "--output", output)
    image.write_text("no image")
    assert "cannot be read" in refused(capsys, image, "--output", output)
    assert_only(image)


def test_tiny_image(image, capsys):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("L", (1, 5)).save(image)
    assert "is 5 x 1 pixels: it must be at least 2 x 2" in refused(
        capsys, image, "--output", image.with_name("figure.png")
    )
    assert_only(image)


def test_unwritable_output(image, capsys):
    assert "cannot be written" in refused(capsys, image, "--output", image.with_name("absent") / "figure.png")
    assert "cannot be written" in refused(capsys, image, "--output", image / "figure.png")
    assert "cannot be written" in refused(capsys, image, "--output", image.with_name("long" * 100))
    assert "must be a file" in refused(capsys, image, "--output", image.parent)
    assert_only(image)


def test_failure_keeps_the_old_figure(image, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    output = image.with_name("figure.png")
    output.write_text("old")

    def half_written(self, path, **_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", half_written)
    assert demo(image, "--output", output) == 2
    assert output.read_text() == "old"
    assert sorted(image.parent.iterdir()) == [output, image]


@pytest.mark.parametrize("missing", ["matplotlib", "PIL"])
def test_missing_dependency(missing, monkeypatch, capsys, tmp_path):
    if missing == "PIL":
        pytest.importorskip("matplotlib")
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    message = refused(capsys, "--output", tmp_path / "figure.png")
    assert f"{missing} is missing" in message
    assert 'pip install "cytconv[demo]"' in message
    assert not list(tmp_path.iterdir())


def test_info(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for name in _runtime.config():
        assert name in text


def test_command_is_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err
