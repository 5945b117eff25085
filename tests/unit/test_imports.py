"""The imports of the package. `make check` holds their direction; this finds circles."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def in_order(graph: grimp.ImportGraph) -> tuple[str, ...]:
    """The modules, each after those that it imports. Raises CycleError."""
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    return tuple(TopologicalSorter(imports).static_order())


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = in_order(grimp.build_graph("slurper", cache_dir=None))
    assert order.index("slurper.errors") < order.index("slurper.cli.copy")


def test_a_circle_would_be_found() -> None:
    graph = grimp.build_graph("slurper", cache_dir=None)
    graph.add_import(importer="slurper.errors", imported="slurper.cli.copy")
    with pytest.raises(CycleError):
        in_order(graph)


@pytest.mark.processes
@pytest.mark.parametrize("module", ["slurper.transfer.worker", "slurper.cli.copying"])
def test_a_copy_between_other_stores_loads_nothing_of_google(module: str) -> None:
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    loaded = done.stdout.split()
    assert module in loaded
    assert [name for name in loaded if name.startswith("slurper.objectstore.gcs")] == []
