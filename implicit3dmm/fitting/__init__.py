"""Fitting: from a raw scan to codes and a mesh."""

from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.fit import fit, fit_sequence, fit_together
from implicit3dmm.fitting.head_fit import HeadFit

__all__ = ["FitConfig", "HeadFit", "fit", "fit_sequence", "fit_together"]
