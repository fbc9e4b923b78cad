"""Eight devices do what one does. Simulated ones, in a process of their own: this one has a single device already."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE
from three_steps import BATCH, CONTEXT, MODEL
from tolerance import assert_close, text_encoder_terms, whisper_terms

ROOT = Path(__file__).parents[1]
TERMS = 2 * (text_encoder_terms(MODEL.text_encoder, CONTEXT) + whisper_terms(MODEL.whisper, CONTEXT)) + BATCH * 512
"""Of a gradient: there and back, then over all mel frames of all examples."""


@pytest.mark.usefixtures("quick_compilation")
def test_eight_devices_do_what_one_does(tmp_path: Path) -> None:
    """Losses, gradient norms and every parameter after three steps, float32."""
    meshes = ("1,1,1", "2,2,2")
    command = [sys.executable, str(ROOT / "tests" / "three_steps.py"), str(tmp_path), *meshes]
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "NPROC": "16",  # XLA's threads; fewer than devices wait for each other for ever (jax 0.11)
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    one, eight = (dict(np.load(tmp_path / f"{mesh}.npz")) for mesh in meshes)
    assert one.keys() == eight.keys()
    for name, expected in one.items():
        assert_close(eight[name], expected, TERMS, message=name)
