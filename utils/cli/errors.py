"""The one exception whose message is meant for the user's eyes."""


class UserError(Exception):
    """Say what is wrong with the user's files, flags or data, and what to do about it.

    A command prints it as one line, `error: <file or flag>: <reason>; <what to do>`, and exits with
    `exit_code`: 2 for bad usage, data or config, 1 for a failure while running.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal ended the run; like KeyboardInterrupt it is no Exception, which careless code would catch.

    Attributes:
        number: the signal; the exit status is 128 more.
        message: what was saved, for the last line.
    """

    def __init__(self, number: int, message: str = "nothing was saved") -> None:
        super().__init__(message)
        self.number = number
        self.message = message
