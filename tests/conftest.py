"""Settings of every test: derandomised properties, warnings as errors, strict promotion, four devices, kept programs.

Environment: JAX_COMPILATION_CACHE_DIR, where compiled programs are kept between runs (default `.jax_cache` beside the
tests); JAXDESIGN_TYPES=1, arguments and results of every function of the package are held against its annotations,
shapes of arrays included.
"""

import os
from pathlib import Path

import jax
import pytest
from hypothesis import settings

if os.environ.get("JAXDESIGN_TYPES"):
    from tests.support import typed

    typed.switch_on()

# deadline=None because a first example pays for compilation; no database, so that a run depends on the code alone
settings.register_profile("jaxdesign", derandomize=True, database=None, deadline=None, print_blob=True, max_examples=25)
settings.load_profile("jaxdesign")

jax.config.update("jax_numpy_dtype_promotion", "strict")  # float32 and float64 meet on purpose or not at all
jax.config.update("jax_numpy_rank_promotion", "raise")  # and so do a vector and a matrix
jax.config.update("jax_num_cpu_devices", 4)  # so that sharded pools are tested everywhere

KEPT_PROGRAMS = {  # most of a first run is compilation
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".jax_cache"),
    "jax_persistent_cache_min_compile_time_secs": 0.05,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in KEPT_PROGRAMS.items():
    if name.upper() not in os.environ:
        os.environ[name.upper()] = str(value)  # of programs that tests start, too
        jax.config.update(name, value)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # another process may be writing the entry at the moment; it is then compiled here too
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Of a test marked `thorough(cases=n)` n cases, spread evenly over all, are thorough; the others are slow."""
    cases = {}
    for item in items:
        for mark in item.iter_markers("thorough"):
            if mark.kwargs:
                cases.setdefault((item.path, item.originalname), (mark.kwargs["cases"], []))[1].append(item)
    for number, every in cases.values():
        kept = {k * len(every) // number for k in range(number)}
        for k, item in enumerate(every):
            if k not in kept:
                item.add_marker(pytest.mark.slow)


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
    let_go_of_many_programs()


@pytest.fixture(autouse=True)
def few_memory_maps_between_long_tests(request):
    """The same within modules, some of whose slow tests compile hundreds of programs each."""
    yield
    if request.node.get_closest_marker("slow"):
        let_go_of_many_programs()


def let_go_of_many_programs():
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_text().count("\n") > 25_000:
        jax.clear_caches()
