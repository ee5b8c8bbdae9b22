"""Errors that a caller can cause. The message is one line: what is wrong, where, what to do."""


class UserError(Exception):
    """Base class of all mistakes of a caller; tools print ``error: ...`` and exit with 2."""


class ConfigError(UserError, ValueError):
    """A config, an option, an argument or a size that cannot be used."""


class CheckpointError(UserError):
    """Weights that are missing, damaged, unsafe to read or of another network."""


class DatasetError(UserError):
    """Images or annotations that cannot be used."""


class InstallError(UserError):
    """Installed packages that do not fit together."""
