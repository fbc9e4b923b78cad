"""Trains a phrase spotter: python launch/train_spotter.py --config configs/spotters/base.py [--FIELD VALUE ...]"""

import argparse
import logging
import runpy
import sys

from cwjax.commands.terminal import say_error
from cwjax.errors import CwjaxError
from cwjax.overrides import apply_overrides
from cwjax.training.spotter import SpotterTraining, train_spotter


def main() -> int:
    """Runs the training and gives its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("jax").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", required=True)
    known, overrides = parser.parse_known_args()
    try:
        config = runpy.run_path(known.config).get("config")
        if not isinstance(config, SpotterTraining):
            raise CwjaxError(f"{known.config}: sets no `config`; end it with `config = SpotterTraining(...)`")
        train_spotter(apply_overrides(config, overrides, "train_spotter.py --config FILE"))
    except OSError as error:
        say_error(CwjaxError(f"{known.config}: cannot be read ({error.strerror})"))
        return 1
    except CwjaxError as error:
        say_error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
