"""The seams of grafted parts: the change of mean curvature across their rims, plain affine map against blended.

python scripts/seams.py
"""

import numpy as np
import tyro

from implicit3dmm.data.composites import graft_sites
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import open_source


def main(*, pairs: int = 40, seed: int = 11, source: str = "makehuman") -> None:
    """Prints a row for each part, 1/mm: the host and the donor as they are, and the composites.

    Args:
        pairs: Hosts, each with a donor of its own.
        seed: Of the heads.
        source: Head source.
    """
    heads = np.stack([head.vertices for head in generate(Recipe(source=source, seed=seed, train=2 * pairs))])
    hosts, donors = heads[:pairs], heads[pairs:]
    print(f"{'':6} {'host':>7} {'donor':>7} {'affine':>7} {'blended':>7}")
    for part, site in graft_sites(open_source(source)).items():
        rows = (hosts, donors, site.graft(hosts, donors, blended=False), site.graft(hosts, donors))
        means = [np.mean([site.seam(head) for head in row]) for row in rows]
        print(f"{part:6} " + " ".join(f"{mean:7.4f}" for mean in means))


if __name__ == "__main__":
    tyro.cli(main)
