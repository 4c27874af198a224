"""A figure becomes two files that say what they show, the same for the same drawing, and small."""

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from splitlib import plots
from splitlib.plots import saving

matplotlib.use("Agg")
SVG = "{http://www.w3.org/2000/svg}"


def draw(points: int = 3):
    values = np.random.default_rng(0).normal(size=points)
    with plots.figure("Measured: real digits,\nMobileNetV2\nAMD") as (drawing, axes):
        axes[0].plot(values, label="a line")
        axes[0].scatter(values, values)
        axes[0].set_xlabel("time [ms]")
        axes[0].legend()
    return drawing


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    saving.save(draw(), tmp_path / "01_x.png", about="real data")
    return tmp_path / "01_x.png"


def test_both_files_are_there_and_nothing_else(saved: Path) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == ["01_x.png", "01_x.svg"]


def test_the_same_drawing_gives_the_same_bytes(saved: Path) -> None:
    first = [saved.with_suffix(kind).read_bytes() for kind in (".png", ".svg")]
    saving.save(draw(), saved, about="real data")
    assert [saved.with_suffix(kind).read_bytes() for kind in (".png", ".svg")] == first


def test_files_say_title_and_data_and_no_date(saved: Path) -> None:
    with Image.open(saved) as picture:
        info = dict(picture.info)
    assert info["Title"] == "Measured: real digits, MobileNetV2; AMD" and info["Description"] == "real data"
    text = saved.with_suffix(".svg").read_text(encoding="utf-8")
    assert "<title>Measured: real digits, MobileNetV2; AMD</title>" in text
    assert "date" not in text.split("</metadata>")[0] and "Software" not in info


def test_text_stays_text(saved: Path) -> None:
    words = [element.text for element in ElementTree.parse(saved.with_suffix(".svg")).iter(f"{SVG}text")]
    assert {"time [ms]", "a line"} <= set(words)


def test_what_is_dense_becomes_a_picture_and_the_axes_do_not(tmp_path: Path) -> None:
    sizes = {}
    for points in (100, 5_000):
        saving.save(draw(points), tmp_path / f"{points}.png")
        tree = ElementTree.parse(tmp_path / f"{points}.svg")
        sizes[points] = len(list(tree.iter(f"{SVG}image"))), (tmp_path / f"{points}.svg").stat().st_size
        assert "time [ms]" in [element.text for element in tree.iter(f"{SVG}text")]
    assert sizes[100][0] == 0 < sizes[5_000][0]
    assert sizes[5_000][1] < 300_000


def test_a_failure_leaves_both_old_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in saved.parent.iterdir()}
    whole = matplotlib.figure.Figure.savefig

    def fails_in_svg(drawing, target, **options):
        whole(drawing, target, **options)
        if options["format"] == "svg":
            raise OSError("disk full")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fails_in_svg)
    with pytest.raises(OSError, match="disk full"):
        saving.save(draw(5), saved, about="other")
    assert {path: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_49_lines_look_different() -> None:
    looks = [plots.look(position) for position in range(49)]
    assert len({str(sorted(style.items(), key=str)) for style in looks}) == 49
    pairs = [(style["marker"], style["linestyle"]) for style in looks]
    assert len(set(pairs)) == 49, "also without colour"


def test_hatches_are_of_lines() -> None:
    """An SVG writes each dot of a dotted hatch as a path: half a megabyte for one bar chart."""
    assert not any(dot in hatch for hatch in plots.HATCHES for dot in ".oO*")
