"""What all edits share: the heads that are named, and what is said of the results."""

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import tell

Head = Positional[Annotated[Path, arg(metavar="HEAD")]]
Donor = Positional[Annotated[Path, arg(metavar="DONOR")]]


def told(out: Path, report: dict[str, Any]) -> int:
    """Prints what moved, and warnings on the error stream."""
    for warning in report["warnings"]:
        tell(f"before: {warning}")
    for entry in report["edits"]:
        for warning in entry["warnings"]:
            tell(f"{entry['mesh']}: {warning}")
        print(
            f"{entry['mesh']}: {entry['moved_share']:.1%} of the vertices moved, by {entry['mean_of_moved_mm']:.2f} mm"
            f" in the mean and {entry['most_mm']:.2f} mm at most"
        )
    print(f"results in {out}; picture.png shows them")
    return 0
