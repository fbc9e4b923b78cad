"""How long tests wait for what never comes. Nothing that works, on however slow a machine, is ended by it."""

import os
import threading
from subprocess import Popen

PATIENCE = float(os.environ.get("CWJAX_TEST_PATIENCE", 1800))
"""Seconds after which a test takes a process for hung."""


def end_when_hung(process: Popen) -> threading.Timer:
    """Kills the process once patience is over, so that whatever waits for it or reads from it goes on."""
    timer = threading.Timer(PATIENCE, process.kill)
    timer.daemon = True
    timer.start()
    return timer
