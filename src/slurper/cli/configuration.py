"""Settings for a command: what its options say beats environment and file."""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError

from slurper import errors
from slurper.settings import Settings


def load(**options: Any) -> Settings:  # noqa: ANN401 - fields of Settings, which validates them
    """Read the settings; an option that is None was not given.

    Raises:
        ConfigurationError: one or more values cannot work; names each by its variable.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise errors.ConfigurationError("; ".join(map(_in_words, error.errors()))) from error
    except ValueError as error:  # what is wrong with the TOML
        raise errors.ConfigurationError(f"SLURPER_CONFIG: {error}") from error
    except OSError as error:
        path = os.environ.get("SLURPER_CONFIG")
        raise errors.ConfigurationError(f"SLURPER_CONFIG {path}: {error.strerror}") from error


def _in_words(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails is not public everywhere
    name = "_".join(str(part) for part in problem["loc"])
    return f"SLURPER_{name.upper()}: {problem['msg']}"
