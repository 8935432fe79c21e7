"""Settings of every test: derandomised properties, warnings as errors, strict promotion, four CPU devices."""

from pathlib import Path

import jax
import pytest
from hypothesis import settings

# deadline=None because a first example pays for compilation; no database, so that a run depends on the code alone
settings.register_profile("jaxdesign", derandomize=True, database=None, deadline=None, print_blob=True, max_examples=25)
settings.load_profile("jaxdesign")

jax.config.update("jax_numpy_dtype_promotion", "strict")  # float32 and float64 meet on purpose or not at all
jax.config.update("jax_numpy_rank_promotion", "raise")  # and so do a vector and a matrix
jax.config.update("jax_num_cpu_devices", 4)  # so that sharded pools are tested everywhere


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture
def float64_scope():
    """JAX as a user with x64 switched on sees it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def promotion(request):
    """JAX's own rules in modules that say so, because a library that they use promotes by itself."""
    with jax.numpy_dtype_promotion(getattr(request.module, "PROMOTION", "strict")):
        yield


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Compiled programs each hold memory maps; a process that has too many of them (65,530 on Linux) is killed."""
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_text().count("\n") > 25_000:
        jax.clear_caches()
