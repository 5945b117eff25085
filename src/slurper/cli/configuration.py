"""Settings for a command: its options win, then the environment, the file, and last the defaults.

Errors say where a wrong value was found: in a variable, or in the file under a name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from slurper import errors
from slurper.settings import Settings


def load(defaults: Mapping[str, Any] | None = None, /, **options: Any) -> Settings:  # noqa: ANN401 - fields of Settings, which validates them
    """Read the settings. An option that is None was not given.

    `defaults` are those of the command. They replace only the defaults of Settings.

    Raises:
        ConfigurationError: values cannot work, or names are unknown. The message names all.
    """
    given = {name: value for name, value in options.items() if value is not None}
    path = os.environ.get("SLURPER_CONFIG") or ""
    try:
        settings = Settings(**given)
    except ValidationError as error:
        found = (_in_words(each, given, path) for each in error.errors())
        raise errors.ConfigurationError("; ".join(found)) from error
    except ValueError as error:  # the file is no TOML
        raise errors.ConfigurationError(f"SLURPER_CONFIG {path}: {error}") from error
    except OSError as error:
        raise errors.ConfigurationError(f"SLURPER_CONFIG {path}: {error.strerror}") from error
    said = settings.model_fields_set
    own = {name: value for name, value in (defaults or {}).items() if name not in said}
    return settings.model_copy(update=own)


def _in_words(problem: Any, given: Mapping[str, Any], path: str) -> str:  # noqa: ANN401 - pydantic's ErrorDetails is not public everywhere
    name = "_".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: {name}: no such setting{_nearest(name)}"
    variable = f"SLURPER_{name.upper()}"
    if name in given or os.environ.get(variable):
        return f"{variable}: {problem['msg']}"
    return f"{path}: {name}: {problem['msg']}"


def _nearest(name: str) -> str:
    """Propose a setting for an unknown name, for example that of a variable or a TOML table."""
    from difflib import get_close_matches

    plain = name.lower().replace("-", "_").removeprefix("slurper_")
    near = get_close_matches(plain, Settings.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else "; settings stand at the top, in no table"
