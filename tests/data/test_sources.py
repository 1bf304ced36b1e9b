import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest

from implicit3dmm.data.sources import base, expression_weights, open_source, register_source, source_names
from implicit3dmm.errors import InputError


def test_the_two_sources_are_registered():
    assert {"makehuman", "ict"} <= set(source_names())


def test_a_source_is_opened_once():
    assert open_source("makehuman") is open_source("makehuman")


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match=r"no head source 'makehumen'; there are .*makehuman"):
        open_source("makehumen")


def test_a_plug_in_registers_by_its_entry_point(makehuman, monkeypatch):
    def load() -> None:
        register_source("plugged")(lambda: makehuman)

    def entry_points(group: str) -> list:
        return [SimpleNamespace(load=load)] if group == "implicit3dmm.sources" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(base, "SOURCES", dict(base.SOURCES))
    base._load_plugins.cache_clear()
    assert "plugged" in source_names()
    assert open_source("plugged") is makehuman


class TestExpressionWeights:
    def test_without_a_generator_they_are_the_table(self, makehuman):
        weights = dict(zip(makehuman.unit_names, expression_weights(makehuman, "smile_open", None), strict=True))
        moving = {unit: weight for unit, weight in weights.items() if weight}
        assert moving == pytest.approx({"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "jawOpen": 0.35})

    def test_equal_seeds_give_equal_weights(self, makehuman):
        draws = [expression_weights(makehuman, "anger", np.random.default_rng(seed)) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.array_equal(draws[0], draws[2])

    def test_gain_and_sides_stay_in_their_ranges(self, makehuman):
        rng = np.random.default_rng(0)
        plain = expression_weights(makehuman, "smile_open", None)
        used = plain > 0
        factor = np.array([expression_weights(makehuman, "smile_open", rng)[used] / plain[used] for _ in range(400)])
        names = np.array(makehuman.unit_names)[used].tolist()
        gain = factor[:, names.index("jawOpen")]
        assert 0.7 <= gain.min() < 0.71
        assert 1.09 < gain.max() <= 1.1
        for side in ("Left", "Right"):
            relative = factor[:, names.index(f"mouthSmile{side}")] / gain
            assert 0.9 - 1e-6 <= relative.min() < 0.91
            assert 1.09 < relative.max() <= 1.1 + 1e-6
        left, right = (factor[:, names.index(f"mouthSmile{side}")] / gain for side in ("Left", "Right"))
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.2

    def test_all_units_of_a_side_share_its_factor(self, makehuman):
        weights = expression_weights(makehuman, "anger", np.random.default_rng(3))
        plain = expression_weights(makehuman, "anger", None)
        left = [i for i, name in enumerate(makehuman.unit_names) if plain[i] and name.endswith("Left")]
        np.testing.assert_allclose(weights[left] / plain[left], weights[left[0]] / plain[left[0]], rtol=1e-6)

    def test_neutral_is_zero(self, makehuman):
        assert not expression_weights(makehuman, "neutral", np.random.default_rng(0)).any()

    def test_an_unknown_expression_is_refused(self, makehuman):
        with pytest.raises(InputError, match=r"no expression 'grin' in makehuman; it has neutral, smile"):
            expression_weights(makehuman, "grin", None)
