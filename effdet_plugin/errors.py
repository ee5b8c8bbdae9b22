"""Errors a caller can cause. Each carries one line: what is wrong, where, what to do."""


class UserError(Exception):
    """Root of all mistakes of a caller; tools print it as ``error: ...`` and exit with 2."""


class ConfigError(UserError, ValueError):
    """A config, an option, an argument or a size that cannot be used."""


class CheckpointError(UserError):
    """Weights that are missing, damaged, unsafe to read or of another network."""


class WriteError(UserError, OSError):
    """A file or folder that cannot be written: no space, no permission, something in the way."""


class DatasetError(UserError):
    """Images or annotations that cannot be used."""


class InstallError(UserError):
    """Installed packages that do not fit together."""
