"""What the caller of a command got wrong, as one class that the command line prints in one line.

Imported by every room of `train` that reads settings; needs nothing. Raised messages are printed by
`paravt` after `error:`.
"""


class ConfigError(ValueError):
    """Settings that cannot run; the message names the key or the package and says what to do."""
