"""An option of XLA with which a small program is compiled sooner, for tests and the processes that they start."""

import os
from typing import Any

import jax
import pytest
from jax._src import compiler

OPTION = {"xla_cpu_use_fusion_emitters": "False"}
"""XLA's newer emitters make faster loops, but take longer over a small program than all the rest of XLA."""
TOLD = "CWJAX_TEST_COMPILES_QUICKLY"
"""Set for processes that tests start, if they shall use the option too."""


def compile_quickly(patch: pytest.MonkeyPatch) -> None:
    """Compiles with the option until the patch is undone."""
    try:
        jax.jit(lambda: 0, compiler_options=OPTION)()
    except jax.errors.JaxRuntimeError:  # an XLA that has no such option any more
        return
    patch.setenv(TOLD, "1")
    compile_as_told(patch)


def compile_as_told(patch: pytest.MonkeyPatch | None = None) -> None:
    """Compiles with the option if the environment says so. No device is touched, so that processes can still join."""
    if TOLD not in os.environ:
        return
    options = compiler.get_compile_options

    def with_option(*arguments: Any, env_options_overrides: dict[str, str] | None = None, **others: Any) -> Any:
        return options(*arguments, env_options_overrides=OPTION | (env_options_overrides or {}), **others)

    (patch or pytest.MonkeyPatch()).setattr(compiler, "get_compile_options", with_option)
