"""Gradients of a batch, shared out among threads on the CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

Losses = dict[str, float]


class GradientWorkers:
    """Differentiates an objective on parts of a batch, each part in a thread with one core of its own.

    Unlike threads inside each operation these meet once a step, so a busy machine does not hold them up. The sum is
    taken in the order of the parts: the same number of workers gives the same bits.
    """

    def __init__(self, objective: nn.Module, workers: int):
        """With one worker everything stays in the calling thread, with torch's own threads inside operations.

        With more, operations have one thread each, those of the calling thread (the optimiser's) too.
        """
        self.objective = objective
        self.workers = workers
        self._parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        if workers > 1:
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, *batch: Tensor) -> Losses:
        """Leaves the gradient of the total loss in the parameters.

        Args:
            batch: the objective's arguments, cut along their first dimension.

        Returns:
            Each loss, averaged over the batch.
        """
        parts = list(zip(*(tensor.chunk(self.workers) for tensor in batch), strict=True))
        weights = [len(part[0]) / len(batch[0]) for part in parts]
        run = self._pool.map if self.workers > 1 else map
        results = list(run(self._differentiate, parts, weights))
        for number, parameter in enumerate(self._parameters):
            terms = [gradients[number] for _, gradients in results if gradients[number] is not None]
            parameter.grad = sum(terms[1:], terms[0]) if terms else None
        return {name: sum(losses[name] for losses, _ in results) for name in results[0][0]}

    def _differentiate(self, part: Sequence[Tensor], weight: float) -> tuple[Losses, Sequence[Tensor | None]]:
        named = {name: weight * loss for name, loss in self.objective(*part).items()}
        gradients = torch.autograd.grad(named["total"], self._parameters, allow_unused=True)
        return dict(zip(named, torch.stack(list(named.values())).tolist(), strict=True)), gradients
