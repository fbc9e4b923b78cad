"""The one exception that users see as a plain line instead of a traceback."""


class CwjaxError(Exception):
    """Something the user can mend: the message names the file or option and the cure.

    Commands print it as one line and exit with status 1; `--debug` shows the traceback.
    """
