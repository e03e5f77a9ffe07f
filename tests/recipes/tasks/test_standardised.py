from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from analogsim.recipes.tasks.standardised import is_bytes, standardised


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 5 + 3


@pytest.mark.parametrize(("shape", "axes"), [((50, 4), (0,)), ((50, 3, 6, 6), (0, 2, 3)), ((50, 7, 2), (0, 1, 2))])
def test_channels_of_images_and_columns_of_tables_have_a_scale_each(shape: tuple[int, ...], axes: Any) -> None:
    train, test = standardised(*(TensorDataset(numbers(*shape), torch.zeros(50)) for _ in range(2)))
    std, mean = torch.std_mean(train.tensors[0], dim=axes, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std))
    assert torch.equal(train.tensors[0], test.tensors[0])


def test_what_is_no_number_stays() -> None:
    tokens = TensorDataset(torch.tensor([[1, 2]]), torch.tensor([0]))
    assert standardised(tokens)[0] is tokens
    assert not is_bytes(tokens)
    assert is_bytes(TensorDataset(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2)))


def test_a_column_that_does_not_change_stays_finite() -> None:
    (train,) = standardised(TensorDataset(torch.tensor([[1.0, 2.0], [1.0, 4.0]]), torch.zeros(2)))
    assert train.tensors[0].tolist() == [[0, -1], [0, 1]]


def test_samples_one_by_one_become_what_they_become_as_a_whole() -> None:
    images = torch.randint(256, (40, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    class OneByOne(Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return images[index], index

    (whole,) = standardised(TensorDataset(images, torch.arange(40)))
    (lazy,) = standardised(OneByOne())
    assert len(lazy) == 40
    for at in (0, 17, 39):
        torch.testing.assert_close(lazy[at][0], whole.tensors[0][at])
        assert lazy[at][1] == at
