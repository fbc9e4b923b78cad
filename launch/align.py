"""`cwjax align`, from a clone."""

import sys

from cwjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["align", *sys.argv[1:]]))
