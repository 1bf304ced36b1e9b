"""A fixed sparse matrix that acts on the rows of every head of a batch, fast on the CPU in both directions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor, nn


class SparseMap(nn.Module):
    """The product with a matrix whose entries are not learnt and are no part of a weights file.

    Rows are summed by `embedding_bag`, and for the gradient again, with the transposed matrix, which takes less than
    half of the time of torch's sparse product. One head at a time stays in the processor's cache.
    """

    def __init__(self, matrix: csr_array):
        super().__init__()
        for name, entries in (("rows", matrix), ("columns", matrix.T.tocsr())):
            self.register_buffer(f"{name}_places", torch.from_numpy(entries.indices).long(), persistent=False)
            self.register_buffer(f"{name}_starts", torch.from_numpy(entries.indptr).long(), persistent=False)
            self.register_buffer(f"{name}_values", torch.from_numpy(entries.data).float(), persistent=False)

    def forward(
        self, values: Float[Tensor, "b v i"], weight: Float[Tensor, "s o i"] | None = None
    ) -> Float[Tensor, "b m o"]:
        """The matrix times the values of each head, or times s linear maps of them; differentiable once.

        Args:
            values: rows of each head.
            weight: of the maps, whose products are never in memory for more than a head; the matrix is then
                (m, v s), with a column for each row and map, else (m, v).
        """
        return _Product.apply(values, weight, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weight, matrix):
        ctx.matrix = matrix
        ctx.save_for_backward(values, weight)
        width = values.shape[2] if weight is None else weight.shape[1]
        sums = values.new_empty(len(values), len(matrix.rows_starts) - 1, width)
        for head, out in zip(values, sums, strict=True):
            rows = head if weight is None else (head @ weight.flatten(0, 1).T).view(-1, width)
            out.copy_(_sums(rows, matrix.rows_places, matrix.rows_starts, matrix.rows_values))
        return sums

    @staticmethod
    def backward(ctx, grad):
        matrix = ctx.matrix
        values, weight = ctx.saved_tensors
        by_values = torch.empty_like(values)
        by_weight = None if weight is None else torch.zeros_like(weight)
        for head, slope, out in zip(values, grad, by_values, strict=True):
            by_rows = _sums(slope, matrix.columns_places, matrix.columns_starts, matrix.columns_values)
            if weight is None:
                out.copy_(by_rows)
            else:
                by_rows = by_rows.view(len(head), -1)
                torch.mm(by_rows, weight.flatten(0, 1), out=out)
                by_weight.flatten(0, 1).addmm_(by_rows.T, head)
        return by_values, by_weight, None


def _sums(rows: Float[Tensor, "n c"], places: Tensor, starts: Tensor, values: Tensor) -> Float[Tensor, "m c"]:
    return F.embedding_bag(
        places,
        rows.contiguous(),
        starts,
        mode="sum",
        per_sample_weights=values.to(rows.dtype),
        include_last_offset=True,
    )
