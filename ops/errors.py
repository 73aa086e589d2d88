"""The one exception that stands for a user's mistake rather than ours."""


class InputError(ValueError):
    """Bad input: a file, a field or a setting that the user can mend.

    Its text is one line that names the file (or setting), the id or field, and the remedy. Entry
    points print it as it is and exit with status 2, without a traceback.
    """
