"""Two OpenAPI documents, compared by what they allow rather than by how they spell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """A schema with references followed, `allOf` merged and both spellings of null made one."""

    type: str | None = None
    nullable: bool = False
    enum: tuple[Any, ...] | None = None
    """Sorted: the order of an enumeration means nothing."""
    default: object = None
    required: frozenset[str] = frozenset()
    properties: Mapping[str, Shape] = field(default_factory=dict)
    items: Shape | None = None
    max_items: int | None = None
    maximum: int | None = None
    variants: Mapping[str, Shape] = field(default_factory=dict)
    """Of a union, by the discriminator's value."""


class Document:
    """One OpenAPI document."""

    def __init__(self, root: Schema) -> None:
        self.root = root

    def operations(self) -> dict[tuple[str, str], Schema]:
        """All operations by (method, path), without extensions."""
        return {
            (method, path): operation
            for path, methods in self.root["paths"].items()
            for method, operation in methods.items()
            if not operation.get("x-extension")
        }

    def parameters(self, operation: Schema) -> dict[tuple[str, str], tuple[bool, Shape]]:
        """(place, name) → (required, shape), without extensions."""
        resolved = [
            self._resolve(parameter)
            for parameter in operation.get("parameters", ())
            if not parameter.get("x-extension")
        ]
        return {
            (one["in"], one["name"]): (one.get("required", False), self.shape(one["schema"]))
            for one in resolved
        }

    def body(self, operation: Schema) -> Shape | None:
        """The request body; None when there is none, or none but an extension."""
        if "requestBody" not in operation:
            return None
        if operation["requestBody"].get("x-extension"):
            assert not operation["requestBody"].get("required", False)
            return None
        assert operation["requestBody"]["required"] is True
        return self._json(operation["requestBody"])

    def responses(self, operation: Schema) -> dict[str, Shape]:
        """Response bodies by status."""
        return {status: self._json(answer) for status, answer in operation["responses"].items()}

    def _json(self, content: Schema) -> Shape:
        assert list(content["content"]) == ["application/json"]
        return self.shape(content["content"]["application/json"]["schema"])

    def _resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            target = self.root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        return schema

    def shape(self, schema: Schema) -> Shape:
        """Return what the schema allows."""
        schema = self._merged(self._resolve(schema))
        if "discriminator" in schema:
            mapping = schema["discriminator"]["mapping"]
            return Shape(variants={tag: self.shape({"$ref": ref}) for tag, ref in mapping.items()})
        enum = schema.get("enum", [schema["const"]] if "const" in schema else None)
        kind = schema.get("type")
        nullable = schema.get("nullable", False) or kind == "null" or enum == [None]
        if nullable and enum == [None]:
            kind, enum = None, None
        return Shape(
            type=None if kind == "null" else kind,
            nullable=nullable,
            enum=None if enum is None else tuple(sorted(enum)),
            default=schema.get("default"),
            required=frozenset(schema.get("required", ())),
            properties={
                name: self.shape(member) for name, member in schema.get("properties", {}).items()
            },
            items=self.shape(schema["items"]) if "items" in schema else None,
            max_items=schema.get("maxItems"),
            maximum=schema.get("maximum"),
        )

    def _merged(self, schema: Schema) -> Schema:
        """One flat schema for `allOf` and for `anyOf: [something, null]`."""
        merged = {key: value for key, value in schema.items() if key not in ("allOf", "anyOf")}
        for part in schema.get("allOf", ()):
            flat = self._merged(self._resolve(part))
            properties = {**merged.get("properties", {}), **flat.get("properties", {})}
            merged |= {**flat, "properties": properties}
        branches = [self._resolve(branch) for branch in schema.get("anyOf", ())]
        if branches:
            (something,) = (branch for branch in branches if branch.get("type") != "null")
            assert len(branches) == 2, "no other anyOf is expected"
            merged |= {**self._merged(something), "nullable": True}
        return merged


def request_differences(theirs: Shape, ours: Shape, path: str) -> Iterator[str]:
    """What a client of theirs may send and ours does not take, and the other way round."""
    ours, extra = _same_branch(theirs, ours)
    yield from (f"{path}<{tag}> is new" for tag in extra)
    if theirs.required != ours.required:
        yield f"{path} requires {sorted(ours.required)}, not {sorted(theirs.required)}"
    yield from _differences(theirs, ours, path, request_differences)


def response_differences(theirs: Shape, ours: Shape, path: str) -> Iterator[str]:
    """As above for what ours answers: it may promise more members than theirs does."""
    ours, extra = _same_branch(theirs, ours)
    yield from (f"{path}<{tag}> is new" for tag in extra)
    if not theirs.required <= ours.required:
        yield f"{path} does not promise {sorted(theirs.required - ours.required)}"
    yield from _differences(theirs, ours, path, response_differences)


def _same_branch(theirs: Shape, ours: Shape) -> tuple[Shape, list[str]]:
    """Where ours is a union and theirs is one thing: our branch for it, and the other tags."""
    if theirs.variants or not ours.variants:
        return ours, []
    (tag,) = theirs.properties["vendor"].enum or ()
    return ours.variants[tag], sorted(ours.variants.keys() - {tag})


def _differences(theirs: Shape, ours: Shape, path: str, compare: Any) -> Iterator[str]:  # noqa: ANN401 - one of the two above
    for name in ("type", "nullable", "enum", "max_items", "maximum"):
        if getattr(theirs, name) != getattr(ours, name):
            yield f"{path} {name}: {getattr(ours, name)}, not {getattr(theirs, name)}"
    if theirs.default is not None and theirs.default != ours.default:
        yield f"{path} default: {ours.default}, not {theirs.default}"
    for kind in ("properties", "variants"):
        mine, other = getattr(ours, kind), getattr(theirs, kind)
        yield from (f"{path}.{name} is missing" for name in sorted(other.keys() - mine.keys()))
        yield from (f"{path}.{name} is new" for name in sorted(mine.keys() - other.keys()))
        for name in sorted(other.keys() & mine.keys()):
            yield from compare(other[name], mine[name], f"{path}.{name}")
    if theirs.items is not None and ours.items is not None:
        yield from compare(theirs.items, ours.items, f"{path}[]")
