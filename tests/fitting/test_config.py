import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.fitting import FitConfig


def test_the_defaults_are_valid():
    FitConfig().validate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"points": 99}, "points is 99; give at least 100"),
        ({"steps": 0}, "steps and first_points"),
        ({"first_points": 0}, "steps and first_points"),
        ({"robust_end": 0.0}, "robust"),
        ({"robust_start": 0.001}, "robust"),
        ({"widest": 0.5}, "widest is 0.5"),
        ({"prior": 0.0}, "prior_start and prior"),
        ({"prior_start": 1e-12}, "prior_start and prior"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        FitConfig(**values).validate()
