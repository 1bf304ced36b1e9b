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
    steps: int = 250
    """Steps of the solver."""
    batch: int = 2048
    """Points in a step."""
    code_rate: float = 0.1
    """Adam's rate for the codes, standard deviations of the prior."""
    pose_rate: float = 5e-3
    """Adam's rate for the pose: radians, canonical units and the logarithm of the scale."""
    robust_start: float = 0.05
    """Distance, canonical units, beyond which a point starts to lose its say at the first step (10 mm)."""
    robust_end: float = 0.02
    """The same at the last step (4 mm): hair and strays have none left."""
    prior: float = 1e-8
    """Weight of the squared norm of the whitened codes beside the mean squared distance in canonical units."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; give 0 to 2^63 - 1")
        if self.points < MIN_SCAN_POINTS:
            raise InputError(f"points is {self.points}; give at least {MIN_SCAN_POINTS}")
        if min(self.steps, self.batch) < 1:
            raise InputError("steps and batch must be at least 1")
        if min(self.code_rate, self.pose_rate) < 0:
            raise InputError("code_rate and pose_rate must be at least 0")
        if not 0 < self.robust_end <= self.robust_start:
            raise InputError("robust_start and robust_end must be above 0, the end at most the start")
        if self.prior < 0:
            raise InputError(f"prior is {self.prior}; give at least 0")
