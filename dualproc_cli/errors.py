"""The two ways in which a command fails, each with its exit status."""


class UserError(Exception):
    """A user's mistake, in one line: what was wrong, where, what was expected, what to do. Exit status 2."""

    exit_status = 2


class RunFailed(Exception):
    """A run that started well and failed (a NaN loss, a full disk). Exit status 1."""

    exit_status = 1
