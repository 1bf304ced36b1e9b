"""The one exception that a user's input can cause."""


class InputError(ValueError):
    """The input cannot be used as it is.

    The message is one line that says what was given, what was expected and what to do next. The command
    line prints it as it stands and exits with code 2; it is never shown with a traceback.
    """
