"""Exceptions whose message is written for the user."""


class UserError(Exception):
    """An error in the user's files, flags or data; the message says what is wrong and what to do.

    A command prints it as one line, `error: <file or flag>: <reason>; <what to do>`, and exits with
    `exit_code`: 2 for bad usage, data or config, 1 for a failure while running.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal that ended the run; not an Exception, so that no broad `except` catches it.

    Attributes:
        number: the signal; the exit status is 128 more.
        message: what was saved, for the last line.
    """

    def __init__(self, number: int, message: str = "nothing was saved") -> None:
        super().__init__(message)
        self.number = number
        self.message = message
