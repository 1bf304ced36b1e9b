import json

import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.results import ResultsFolder, plain_json, read_rows, write_json

SETTINGS = {"config": {"seed": 0, "parts": ("a", "b")}}


def test_rows_come_back_after_reopening(tmp_path):
    results = ResultsFolder(tmp_path / "run", SETTINGS)
    results.append({"record": 3, "error": 0.1 + 0.2})
    results.append({"record": 4, "error": float("nan")})
    expected = [{"record": 3, "error": 0.1 + 0.2}, {"record": 4, "error": None}]
    assert results.rows == ResultsFolder(tmp_path / "run", SETTINGS).rows == expected


def test_a_torn_last_line_is_dropped_and_its_place_used_again(tmp_path):
    ResultsFolder(tmp_path, SETTINGS).append({"record": 1})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"record": 2, "fi')
    assert read_rows(tmp_path / "results.jsonl") == [{"record": 1}]
    reopened = ResultsFolder(tmp_path, SETTINGS)
    reopened.append({"record": 2})
    assert read_rows(tmp_path / "results.jsonl") == [{"record": 1}, {"record": 2}]


def test_a_damaged_line_is_named(tmp_path):
    ResultsFolder(tmp_path, SETTINGS).append({"record": 1})
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text() + "oops\n" + path.read_text())
    with pytest.raises(InputError, match=r"results\.jsonl, line 2 is damaged"):
        ResultsFolder(tmp_path, SETTINGS)


def test_a_folder_serves_one_set_of_settings(tmp_path):
    ResultsFolder(tmp_path, SETTINGS).append({"record": 1})
    with pytest.raises(InputError, match=r"other settings \(config\)"):
        ResultsFolder(tmp_path, {"config": {"seed": 1}})
    with pytest.raises(InputError, match=r"other settings \(config, about\)"):
        ResultsFolder(tmp_path, {"about": "x"})


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty and holds no results"):
        ResultsFolder(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "x.json", {1: (float("inf"), -0.5), "y": {"z": float("nan")}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"1": [None, -0.5], "y": {"z": None}}
    assert plain_json([True, None, "text", 3]) == [True, None, "text", 3]
