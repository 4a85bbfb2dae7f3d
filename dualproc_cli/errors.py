"""The two ways in which a command fails, each with its exit status."""


class _Failure(Exception):
    """A failure that is told in a line, never by a traceback."""

    exit_status: int

    @property
    def lines(self) -> list[str]:
        """What is printed."""
        return [str(self)]


class UserError(_Failure):
    """A user's mistake, in one line: what was wrong, where, what was expected, what to do. Exit status 2."""

    exit_status = 2


class RunFailed(_Failure):
    """A run that started well and failed (a NaN loss, a full disk). Exit status 1."""

    exit_status = 1
