import numpy as np
import pytest
from PIL import Image

from implicit3dmm.errors import InputError
from implicit3dmm.render.drawing import PAPER, Canvas, text_width, wrap
from implicit3dmm.render.pictures import grid, stack, strip, text_block, with_margin, write_png


def plain(width, height, value):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_a_strip_is_as_wide_as_its_pictures_and_gaps():
    images = [plain(40, 30, 1), plain(50, 20, 2), plain(10, 30, 3)]
    assert strip(images, gap=5).shape == (30, 110, 3)
    assert strip(images, ["a", "b", "c"], gap=5, font_size=16).shape == (54, 110, 3)


def test_pictures_lie_unchanged_in_the_middle_of_their_cells():
    sheet = strip([plain(40, 30, 1), plain(50, 20, 2)], ["one", "two"], gap=6, font_size=10)
    assert (sheet[15:45, :40] == 1).all()
    assert (sheet[20:40, 46:] == 2).all()
    assert (sheet[15:20, 46:] == PAPER).all()
    assert (sheet[15:, 40:46] == PAPER).all()
    assert (sheet[:15, :40] != PAPER).any()  # the label


def test_a_grid_has_the_widths_of_its_columns_and_the_heights_of_its_rows():
    rows = [[plain(30, 10, 1), plain(20, 10, 2)], [plain(10, 25, 3)]]
    assert grid(rows, gap=4).shape == (39, 54, 3)
    labelled = grid(rows, gap=4, column_labels=["a", "b"], row_labels=["one", "two"], font_size=20)
    assert labelled.shape == (69, 84, 3)
    assert (labelled[30:40, 30:60] == 1).all()
    assert (labelled[44:69, 40:50] == 3).all()
    assert (labelled[44:, 64:] == PAPER).all()


def test_row_labels_read_upwards():
    upright = grid([[plain(60, 60, 244)]], row_labels=["label"], font_size=16)[:, :24]
    level = grid([[plain(60, 60, 244)]], column_labels=["label"], font_size=16)[:24]
    np.testing.assert_array_equal(np.rot90(upright, -1), level)


def test_stack_and_margin_have_the_sizes_of_their_parts():
    assert stack([plain(30, 10, 1), plain(20, 15, 2)], gap=5).shape == (30, 30, 3)
    framed = with_margin(plain(30, 10, 1), 7)
    assert framed.shape == (24, 44, 3)
    assert (framed[7:17, 7:37] == 1).all()
    assert (framed[:7] == PAPER).all()


def test_long_text_is_broken_between_words():
    text = "the quick brown fox jumps over the lazy dog " * 4
    lines = wrap(text, width=180, size=15)
    assert all(text_width(line, size=15) <= 180 for line in lines)
    assert " ".join(lines) == text.strip()
    assert text_block([text, "again"], width=180, font_size=15).shape == (
        round(22.5 * (len(lines) + 1)),
        180,
        3,
    )


@pytest.mark.parametrize("sign", "–—−×≤≥→µσ")
def test_signs_that_the_font_lacks_are_spelt(sign):
    canvas, box = Canvas((60, 30)), Canvas((60, 30))
    canvas.text((5, 5), sign)
    box.text((5, 5), "\uffff")
    assert (canvas.picture() != PAPER).any()
    assert (canvas.picture() != box.picture()).any()


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([], [], "no pictures"),
        ([[]], [], "no pictures"),
        ([[plain(3, 3, 0), plain(3, 3, 0)]], ["a"], "1 column labels were given for 2"),
        ([[np.zeros((3, 3, 4), np.uint8)]], [], r"\(3, 3, 4\)"),
        ([[np.zeros((3, 3, 3))]], [], "float64"),
    ],
)
def test_what_cannot_be_put_together_is_refused(rows, labels, message):
    with pytest.raises(InputError, match=message):
        grid(rows, column_labels=labels)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_written_picture_is_read_back_unchanged_and_its_bytes_are_equal(tmp_path, channels):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, picture)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_not_written(tmp_path, picture):
    with pytest.raises(InputError, match="no picture"):
        write_png(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_png(tmp_path / "missing" / "a.png", plain(2, 2, 0))
