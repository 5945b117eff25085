"""Settings for a command: what its options say beats environment and file, and those its defaults.

Errors name a value by where it was found: a variable, or the file and the name in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from slurper import errors
from slurper.settings import Settings


def load(defaults: Mapping[str, Any] | None = None, /, **options: Any) -> Settings:  # noqa: ANN401 - fields of Settings, which validates them
    """Read the settings; an option that is None was not given.

    `defaults` are those of the command: they replace the defaults of Settings, and nothing else.

    Raises:
        ConfigurationError: one or more values cannot work, or names are unknown; names each.
    """
    given = {name: value for name, value in options.items() if value is not None}
    path = os.environ.get("SLURPER_CONFIG") or ""
    try:
        settings = Settings(**given)
    except ValidationError as error:
        found = (_in_words(each, given, path) for each in error.errors())
        raise errors.ConfigurationError("; ".join(found)) from error
    except ValueError as error:  # what is wrong with the TOML
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
    """Propose a setting for a name that is none, such as one from a table, or a variable's."""
    from difflib import get_close_matches

    plain = name.lower().replace("-", "_").removeprefix("slurper_")
    near = get_close_matches(plain, Settings.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else "; settings stand at the top, in no table"
