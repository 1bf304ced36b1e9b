import pytest

from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.tables import large_number, markdown_table, plus_minus

NAN = float("nan")


def test_columns_line_up_and_figures_are_flush_right():
    text = markdown_table(["part", "error"], [["whole head", "1.25"], ["ear", "10.50"]])
    assert text.splitlines() == [
        "| part       | error |",
        "| ---------- | ----: |",
        "| whole head |  1.25 |",
        "| ear        | 10.50 |",
    ]


def test_a_bar_in_a_cell_does_not_split_it():
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"


def test_an_estimate_says_what_is_known():
    assert plus_minus(Estimate(0.6149, 0.0449, 12)) == "0.61 ± 0.04"
    assert plus_minus(Estimate(0.6149, 0.0449, 12), digits=3) == "0.615 ± 0.045"
    assert plus_minus(Estimate(0.6149, NAN, 1)) == "0.61"
    assert plus_minus(Estimate(NAN, NAN, 0)) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (256, "256"), (4487.0, "4.49 k"), (151_552_000, "152 M"), (2e9, "2 G")]
)
def test_large_numbers_are_said_in_three_digits(value, text):
    assert large_number(value) == text
