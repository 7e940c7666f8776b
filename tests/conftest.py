import os

import numpy as np
import pytest
from hypothesis import settings

# Tests ask for more threads than there are CPUs, and several may run at once: those that wait leave theirs to the
# others, instead of a slice of time at every barrier.  OpenMP looks when the first module of cytconv loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples on every run, and no deadline: the machine may be busy.
settings.register_profile("cytconv", deadline=None, derandomize=True)
settings.load_profile("cytconv")


@pytest.fixture
def rng():
    return np.random.default_rng(2024)
