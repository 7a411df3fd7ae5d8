"""The user's configuration file: where engines and images are that no package manager knows.

``config.toml`` in the user's configuration directory holds a table of texts for each engine that
wants one, under names that the engine declares, and one for containers (docs/configuration.md).
"""

import tomllib
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import (
    DIRECTORY,
    expand,
    make_directory,
    read_bounded,
    variable,
    write_text_atomic,
)

APP = "bilayer_orchestra"


def config_file() -> Path:
    """Return the path of the configuration file (``ORCHESTRA_CONFIG``, or the platform's place)."""
    from platformdirs import user_config_path

    return Path(variable("ORCHESTRA_CONFIG") or user_config_path(APP) / "config.toml")


def cache_directory() -> Path:
    """Return the directory of compiled engines (``ORCHESTRA_CACHE``, or the platform's place)."""
    from platformdirs import user_cache_path

    return Path(variable("ORCHESTRA_CACHE") or user_cache_path(APP))


#: What to do about something in the cache that another user made.
NOT_TRUSTED = (
    "what lies there would run as you: name a cache directory of your own in ORCHESTRA_CACHE"
)


def configuration() -> dict[str, dict[str, str]]:
    """Return what the file holds, table by table.

    Raises
    ------
    OrchestraError
        If it is not TOML, or no tables of texts.
    """
    path = config_file()
    try:
        data = tomllib.loads(read_bounded(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", error)
        raise OrchestraError(f"{path} cannot be read: {problem}") from error
    for table, keys in data.items():
        if not isinstance(keys, dict):
            raise OrchestraError(f"{path}: `{table}` should be a table, [{table}]")
        for key, value in keys.items():
            if not isinstance(value, str) or not value:
                raise OrchestraError(f"{path}: `{table}.{key}` should be a text")
    return data


def engine_settings(table: str) -> dict[str, str]:
    """Return one table, with ``~`` replaced; empty if there is none."""
    return {key: expand(value) for key, value in configuration().get(table, {}).items()}


def set_engine_setting(engine: str, key: str, value: str) -> Path:
    """Set one key, keep everything else in the file (comments included), return the file.

    Parameters
    ----------
    engine : str
        The table.
    key, value : str
        What is set in it.
    """
    import tomlkit

    path = config_file()
    if configuration().get(engine, {}).get(key) == value:
        return path
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    document = tomlkit.parse(text)
    document.setdefault(engine, tomlkit.table())[key] = value
    make_directory(path.parent, DIRECTORY)
    write_text_atomic(path, tomlkit.dumps(document))
    return path
