"""The route of a task's objects: from which store to which, and under which keys."""

from __future__ import annotations

from dataclasses import dataclass

from slurper.objectstore.base import ObjectStore
from slurper.planning import selection
from slurper.transfer.task import PartsTask, RangeTask, SweepTask


@dataclass(frozen=True, slots=True)
class Route:
    """Both stores of a task, and how keys of the source become keys of the target."""

    source: ObjectStore
    target: ObjectStore
    prefix: str
    """All keys at the source begin with this."""
    strip: int
    """So many characters at the beginning of a key are not part of the target's key."""

    @classmethod
    def of(
        cls, task: RangeTask | PartsTask | SweepTask, source: ObjectStore, target: ObjectStore
    ) -> Route:
        """The route of a task."""
        strip = len(task.prefix) if task.options.strip_prefix else 0
        return cls(source, target, task.prefix, strip)

    def rules(self, task: RangeTask | PartsTask) -> selection.Rules:
        """The rules that decide which objects of a task are copied."""
        return selection.Rules(
            source=self.source.dialect,
            target=self.target.dialect,
            overwrite=task.overwrite,
            options=task.options,
            replayed_since=task.replayed_since,
        )

    def target_key(self, key: str) -> str:
        """The key under which the target keeps `key`."""
        return key[self.strip :]
