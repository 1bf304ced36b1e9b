import json

import numpy as np
import pytest

from implicit3dmm.evaluation.figures import cumulative_errors, distribution_steps
from implicit3dmm.evaluation.methods import MethodInfo
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.regions import PARTS, WIDE_PARTS
from implicit3dmm.evaluation.summary import write_summary
from implicit3dmm.evaluation.trials import MEAN_HEAD, Trials


def row(record, error):
    return {
        "record": record,
        "subject": record,
        "condition": "whole",
        "figures": None if error is None else {part: dict.fromkeys(METRICS, error) for part in PARTS},
        "error": None if error is not None else "InputError: no head",
        "cpu_seconds": None if error is None else 10.0,
        "wall_seconds": None if error is None else 20.0,
    }


@pytest.fixture
def summary(tmp_path):
    def write(**errors):
        trials = []
        for name, values in (errors | {MEAN_HEAD: [2.0] * 3}).items():
            (tmp_path / name).mkdir()
            rows = [row(record, error) for record, error in enumerate(values)]
            trials.append(Trials(name, tmp_path / name, rows, MethodInfo(gate="reached")))
        write_summary(tmp_path, trials)
        return (tmp_path / "summary.md").read_text(), json.loads((tmp_path / "summary.json").read_text())

    return write


def test_all_fits_may_fail(summary):
    page, values = summary(one=[None, None, None])
    assert page.count("  - failed on record") == 3
    assert values["methods"]["one"]["failed"] == 3
    assert values["methods"]["one"]["figures"]["face"]["surface_mean_mm"]["mean"] is None
    assert "NaN" not in page


def test_a_row_a_method_with_its_intervals_and_differences_to_the_first(summary):
    page, values = summary(one=[1.0, 2.0, 3.0], two=[1.5, 2.5, 3.5])
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [5, 3, *[5] * len(WIDE_PARTS)]
    assert all(len({len(line) for line in table}) == 1 for table in tables)
    assert "2.000 ± 2.484" in tables[0][2]
    assert tables[1][2].count("0.500 ± 0.000") == len(WIDE_PARTS)
    assert values["differences"]["two"]["face"]["mean"] == 0.5
    assert page.count("known figure: reached") == 2


def test_one_method_alone_has_no_differences(summary):
    page, values = summary(one=[1.0, 2.0, 3.0])
    assert "minus" not in page
    assert values["differences"] == {}


def test_each_method_has_a_page_of_all_parts(summary, tmp_path):
    summary(one=[1.0, 2.0, 3.0])
    lines = [line for line in (tmp_path / "one" / "summary.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 * len(PARTS)


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
