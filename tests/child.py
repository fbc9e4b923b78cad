"""`cwjax` in a process that tests start: python child.py COMMAND ...

It begins faster without PyTorch, which transformers imports where there is one and no command needs here.
"""

import sys

sys.modules["torch"] = None
from transformers import AutoTokenizer  # noqa: E402, F401 - looks for PyTorch, once for all of transformers

del sys.modules["torch"]  # other libraries look here for what is imported

from quickly import compile_as_told  # noqa: E402

from cwjax.cli import main  # noqa: E402

if __name__ == "__main__":
    compile_as_told()
    sys.exit(main())
