import pytest
import torch

from tests.rewards.tiny_clip import save_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def images():
    return torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
