import numpy as np
import pytest
from hypothesis import settings

# The same examples on every run, and no deadline: the machine may be busy.
settings.register_profile("cytconv", deadline=None, derandomize=True)
settings.load_profile("cytconv")


@pytest.fixture
def rng():
    return np.random.default_rng(2024)
