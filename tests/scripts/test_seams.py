import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "seams.py"


def test_a_blended_seam_is_hardly_more_than_none(capsys):
    runpy.run_path(str(SCRIPT))["main"](pairs=3)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["nose", "eyes", "mouth"]
    for _, host, donor, affine, blended in rows:
        assert float(blended) < 1.6 * max(float(host), float(donor)) < float(affine)
