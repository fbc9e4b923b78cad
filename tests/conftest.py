"""What all tests share: a compilation cache, no network for models, and paths."""

import os
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings
from quickly import compile_quickly

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, however long the machine takes for them; HYPOTHESIS_PROFILE=search looks for others.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("same"), derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

LONGEST = (
    "test_processes",
    "test_sequential",
    "test_mesh",
    "test_runs",
    "test_train",
    "test_original_experiments",
    "test_step",
)
"""Files whose tests run for minutes: they begin first, so that no worker ends long after the other."""


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles the programs of a module, and of processes that it starts, in a third of the time: little is optimized.

    For tests of what programs do that run for milliseconds. Tests of arithmetic compile as users do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        jax.config.update("jax_disable_most_optimizations", True)
        compile_quickly(patch)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
