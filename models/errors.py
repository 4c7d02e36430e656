"""The exceptions that mean "the user can mend this": shown as a single line, never a traceback."""


class UserError(Exception):
    """What is wrong and what to do about it, in one line."""


class TryAgain(UserError):
    """A UserError that may pass on a second try with nothing changed: a lock, a server, a network."""
