"""The processes that the engines of this process have started."""

from __future__ import annotations

import psutil


def worker_processes() -> list[psutil.Process]:
    """Templates and the workers forked from them, dead ones nobody waited for included.

    Those of a service that other tests run for the whole session are the service's, not ours.
    """
    templates = [child for child in psutil.Process().children() if _is_template(child)]
    return templates + [worker for each in templates for worker in _children(each)]


def _is_template(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "slurper.engine.forking" in " ".join(
            process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []
