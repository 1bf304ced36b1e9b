import numpy as np

from implicit3dmm.data.sources import open_source
from implicit3dmm.evaluation.metrics import compare_surfaces
from implicit3dmm.evaluation.regions import HEADLINE, PARTS, head_parts
from implicit3dmm.heads.template import FACE_REGIONS, REGIONS


def test_regions_part_the_head_and_the_wide_parts_are_made_of_them():
    template = open_source("makehuman").template
    parts = head_parts(template)
    assert tuple(parts) == PARTS
    assert (sum(parts[name].astype(int) for name in REGIONS) == 1).all()
    assert parts["whole_head"].all()
    np.testing.assert_array_equal(parts[HEADLINE], ~parts["neck"])
    np.testing.assert_array_equal(parts["face"], np.any([parts[name] for name in FACE_REGIONS], axis=0))
    cap = np.unique(template.triangles[template.cap])
    assert not parts[HEADLINE][cap].any()


def test_samples_of_the_regions_add_up_to_the_whole_head():
    template = open_source("makehuman").template
    comparison = compare_surfaces(
        template.mesh, template.mesh, mm_per_unit=200.0, rng=np.random.default_rng(0), samples=5000
    )
    counts = {name: comparison.metrics(mask)["truth_samples"] for name, mask in head_parts(template).items()}
    assert sum(counts[name] for name in REGIONS) == counts["whole_head"] == 5000
    assert sum(counts[name] for name in FACE_REGIONS) == counts["face"]
    assert counts[HEADLINE] == 5000 - counts["neck"]
