"""`cwjax` in a process that tests start, compiled as quickly as their own: python child.py COMMAND ..."""

import sys

from quickly import compile_as_told

from cwjax.cli import main

if __name__ == "__main__":
    compile_as_told()
    sys.exit(main())
