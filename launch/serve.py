"""`cwjax serve`, from a clone."""

import sys

from cwjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
