import numpy as np
import pytest
import torch
from scipy.sparse import random_array

from implicit3dmm.mesh_models.sparse_map import SparseMap


@pytest.mark.parametrize("maps", [None, 3])
def test_it_is_the_dense_product_with_its_gradients(maps):
    torch.manual_seed(0)
    matrix = random_array((7, 5 * (maps or 1)), density=0.4, rng=np.random.default_rng(0)).astype(np.float32).tolil()
    matrix[2] = 0  # an empty row
    matrix = matrix.tocsr()
    sparse, dense = SparseMap(matrix), torch.from_numpy(matrix.toarray()).double()
    values = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(3, 6, 4, dtype=torch.double, requires_grad=True) if maps else None
    rows = values if weight is None else torch.einsum("bvi,soi->bvso", values, weight).flatten(1, 2)
    torch.testing.assert_close(sparse(values, weight), dense @ rows)
    assert torch.autograd.gradcheck(sparse, (values, weight))


def test_it_is_no_part_of_the_weights():
    matrix = random_array((3, 3), density=0.5, rng=np.random.default_rng(0), format="csr")
    assert not SparseMap(matrix).state_dict()
