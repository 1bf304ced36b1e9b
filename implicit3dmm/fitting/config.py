"""What a fit is told."""

from dataclasses import dataclass

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import MIN_SCAN_POINTS


@dataclass(frozen=True)
class FitConfig:
    """How codes and pose are found from surface points."""

    seed: int = 0
    """Seed of the choice of points."""
    points: int = 10000
    """Points of the scan that are used, spread evenly over its surface."""
    steps: int = 10
    """Gauss-Newton steps; four more where expression units are looked for."""
    first_points: int = 1000
    """Points of the first step; the last three have all."""
    robust_start: float = 0.05
    """Distance, canonical units, beyond which a point starts to lose its say at the first step (10 mm)."""
    robust_end: float = 0.02
    """The same at the end (4 mm): hair and strays have none left."""
    prior_start: float = 1e-5
    """Weight, at the first step, of the squared norm of the whitened codes beside the mean squared distance in
    canonical units."""
    prior: float = 1e-9
    """The same at the end, beside what noise asks for; see `solve`."""
    widest: float = 1.0
    """Most by which a head unlike the training ones may widen the prior's variance; 1 never. 30 follows clean heads of
    another population closer, and on a real scan draws the mouth and the ears out of shape."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; give 0 to 2^63 - 1")
        if self.points < MIN_SCAN_POINTS:
            raise InputError(f"points is {self.points}; give at least {MIN_SCAN_POINTS}")
        if min(self.steps, self.first_points) < 1:
            raise InputError("steps and first_points must be at least 1")
        if not 0 < self.robust_end <= self.robust_start:
            raise InputError("robust_start and robust_end must be above 0, the end at most the start")
        if self.widest < 1:
            raise InputError(f"widest is {self.widest}; give at least 1")
        if not 0 < self.prior <= self.prior_start:
            raise InputError("prior_start and prior must be above 0, the end at most the start")
