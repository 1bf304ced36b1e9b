import numpy as np
import pytest

from implicit3dmm.evaluation.figures import cumulative_errors, distribution_steps
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.regions import HEADLINE, PARTS
from implicit3dmm.evaluation.statistics import estimate_mean
from implicit3dmm.evaluation.summary import summarise, write_summary


def figures(value):
    return {part: dict.fromkeys(METRICS, value) for part in PARTS}


def row(record, fit, *, subject=None, mean_head=2.0):
    return {
        "record": record,
        "subject": record if subject is None else subject,
        "expression": "neutral",
        "fit": None if fit is None else figures(fit),
        "error": "InputError: no head" if fit is None else None,
        "cpu_seconds": None if fit is None else 10.0 + record,
        "wall_seconds": None if fit is None else 20.0,
        "mean_head": figures(mean_head),
    }


def test_means_are_over_heads():
    summary = summarise([row(0, 1.0), row(1, 2.0), row(2, 6.0)])
    assert (summary.heads, summary.subjects, summary.errors) == (3, 3, {})
    for part in PARTS:
        for metric in METRICS:
            assert summary.figures["fit"][part][metric] == estimate_mean(np.array([1.0, 2.0, 6.0]))
            assert summary.figures["mean_head"][part][metric].mean == 2.0
    assert summary.seconds["cpu"].mean == 11.0


def test_heads_of_one_subject_count_as_one():
    rows = [row(0, 1.0, subject=7), row(1, 3.0, subject=7), row(2, 4.0, subject=8), row(3, None, subject=8)]
    estimate = summarise(rows).figures["fit"][HEADLINE]["surface_mean_mm"]
    assert estimate == estimate_mean(np.array([2.0, 4.0]))


def test_all_fits_may_fail(tmp_path):
    rows = [row(0, None), row(1, None)]
    summary = write_summary(tmp_path, rows)
    assert summary.errors == {0: "InputError: no head", 1: "InputError: no head"}
    text = (tmp_path / "summary.md").read_text()
    assert "leave out: 2." in text
    assert "| neck masked | fit       |" in text
    assert "NaN" not in (tmp_path / "summary.json").read_text()


def test_the_table_shows_parts_and_methods_with_their_intervals():
    lines = summarise([row(0, 1.0), row(1, 2.0), row(2, 3.0)]).to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2 * len(PARTS)
    assert len({len(line) for line in table}) == 1
    assert "2.000 ± 2.484" in table[2]


def test_an_unknown_figure_is_left_out():
    rows = [row(0, 1.0), row(1, 2.0), row(2, 3.0)]
    rows[1]["fit"][HEADLINE]["accuracy_mean_mm"] = None
    estimate = summarise(rows).figures["fit"][HEADLINE]["accuracy_mean_mm"]
    assert (estimate.mean, estimate.count) == (2.0, 2)


@pytest.mark.parametrize("errors", [[1.0], [1.0, 2.0, np.nan]])
def test_the_chart_takes_one_head_and_failed_heads(errors):
    picture = cumulative_errors({"fit": np.array(errors), "mean head": np.ones(len(errors))}, title="errors")
    assert picture.ndim == 3
    assert picture.min() < 128


def test_the_line_is_the_share_of_the_errors_up_to_each_place():
    errors = np.append(np.random.default_rng(0).gamma(2.0, size=30), [np.nan, np.nan])
    line, share = distribution_steps(errors)
    assert (line[0], share[0], share[-1]) == (0.0, 0.0, 1.0)
    for place in np.random.default_rng(1).uniform(0, np.nanmax(errors), 50):
        assert share[line <= place][-1] == (errors <= place).mean()
    assert np.isnan(line[share > 30 / 32]).all()
