import runpy
from pathlib import Path

import torch

from implicit3dmm.config import load_config
from implicit3dmm.fields import build_field
from implicit3dmm.latents import LatentBank
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig
from implicit3dmm.training.gradients import GradientWorkers
from implicit3dmm.training.objective import Objective

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


def test_the_twin_that_conditions_for_every_chunk_has_the_losses_and_gradients_of_the_training_step():
    benchmark = runpy.run_path(str(SCRIPT))
    run = load_config(RunConfig, config_folder() / "parts_cascade/tiny.yaml")
    torch.manual_seed(0)
    field = build_field(run.field)
    bank = LatentBank(field.latent_specs, torch.arange(benchmark["SHAPES"]), torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for each in (field, benchmark["EveryChunk"](field)):
        losses.append(GradientWorkers(Objective(each, bank, run.training), 1)(*benchmark["training_batch"]()))
        gradients.append(torch.cat([p.grad.flatten() for p in field.parameters() if p.grad is not None]))
    assert losses[0].keys() == losses[1].keys() > {"distance", "normal", "consistency", "landmark"}
    for name, loss in losses[0].items():
        assert abs(losses[1][name] - loss) < 1e-5 * max(1, abs(loss)), name
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)
