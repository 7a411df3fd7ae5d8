"""The engines that are installed; all come in through entry points, ours as well."""

from bilayer_orchestra.configuration import config_file, configuration
from bilayer_orchestra.engines.base import CONTRACT, Engine, Request
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plugins import Plugins


def _accept(name: str, loaded: object) -> Engine:
    if not (isinstance(loaded, type) and issubclass(loaded, Engine)):
        raise OrchestraError(f"{loaded!r} is not a class that derives from Engine")
    if loaded.contract != CONTRACT:
        raise OrchestraError(
            f"it was written for version {loaded.contract} of the contract between engines and "
            f"this program, which has version {CONTRACT}"
        )
    if loaded.name != name:
        raise OrchestraError(f"it calls itself `{loaded.name}`")
    return loaded()


ENGINES: Plugins[Engine] = Plugins("bilayer_orchestra.engines", "engine", _accept)


def engines() -> dict[str, Engine]:
    """Return all engines by name, in the order in which ``auto`` tries them."""
    last = float("inf")
    found = ENGINES.all().items()
    return dict(sorted(found, key=lambda one: last if one[1].auto is None else one[1].auto))


def known_configuration() -> dict[str, tuple[str, ...]]:
    """Return the tables of the configuration file and their keys, as the engines declare them."""
    found = engines().values()
    known = {table: keys for engine in found for table, keys in engine.configuration.items()}
    kinds = {engine.recipe.kind for engine in found if engine.recipe}
    return known | {"containers": ("command", "base", *sorted(kinds))}


def refuse_unknown_configuration() -> None:
    """Raise OrchestraError if the configuration file holds what no installed engine reads."""
    known = known_configuration()
    for table, keys in configuration().items():
        unknown = [f"key `{table}.{key}`" for key in keys if key not in known.get(table, ())]
        unknown = unknown if table in known else [f"table `{table}`"]
        if unknown:
            names = ", ".join(known.get(table, known))
            raise OrchestraError(f"{config_file()}: unknown {unknown[0]}; known: {names}")


def get_engine(name: str) -> Engine:
    """Return the engine called ``name``.

    Raises
    ------
    OrchestraError
        If there is none; names those that there are.
    """
    engine = ENGINES.get(name)
    if engine is None:
        raise OrchestraError(f"there is no backend `{name}`; known: auto, {', '.join(engines())}")
    refuse_unknown_configuration()
    return engine


_STATES = {
    "canonical": "ground states (`state: {n_up: ..., n_down: ...}`)",
    "thermal": "thermal states (`state: {beta: ...}`)",
}


def refuse_other_ensembles(engine: Engine, request: Request) -> None:
    """Raise OrchestraError if the engine does not declare such states; names those that do."""
    ensemble = request.ensemble
    if ensemble not in engine.ensembles:
        others = [name for name, one in engines().items() if ensemble in one.ensembles]
        raise OrchestraError(
            f"{engine.name} does not solve {_STATES[ensemble]}; use --backend "
            + " or --backend ".join(others)
        )
