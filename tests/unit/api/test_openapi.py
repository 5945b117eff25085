"""Our OpenAPI document agrees with the published one of Super Slurper, extensions aside."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.unit.api.conftest import running, settings_in
from tests.unit.api.openapi_shapes import (
    Document,
    Schema,
    request_differences,
    response_differences,
)

REFERENCE = Path(__file__).parent / "data" / "slurper-openapi.json"

REQUEST_EXTENSIONS = {
    "body.options is new",
    "body.secret.sessionToken is new",
    "body.r2.secret.sessionToken is new",
    "body.s3.secret.sessionToken is new",
    "body.source.r2.secret.sessionToken is new",
    "body.source.s3.secret.sessionToken is new",
    "body.target.secret.sessionToken is new",
    "body.target<s3> is new",
    "body.target<gcs> is new",
    "body<s3> is new",
    "body<gcs> is new",
}
RESPONSE_EXTENSIONS = {
    "200.result.reasons is new",
    "200.result.options is new",
    "200.result.retryOf is new",
    "200.result.createdBy is new",
    "200.result.keyCount is new",
    "200.result.capabilities is new",
    "200.result.target<s3> is new",
    "200.result.target<gcs> is new",
    "200.result[].options is new",
    "200.result[].retryOf is new",
    "200.result[].createdBy is new",
    "200.result[].keyCount is new",
    "200.result[].capabilities is new",
    "200.result[].target<s3> is new",
    "200.result[].target<gcs> is new",
    "200.result.finishedAt is new",
    "200.result.transferredBytes is new",
    "200.result.objectsPerSecond is new",
    "200.result.bytesPerSecond is new",
    "200.result.totalObjects is new",
    "200.result.totalBytes is new",
    "200.result.estimatedSecondsLeft is new",
    "200.result.throttledShare is new",
    "200.result.activeWorkers is new",
    "200.result.waitingFor is new",
}


@pytest.fixture(scope="module")
def theirs() -> Document:
    return Document(json.loads(REFERENCE.read_text()))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Document:
    async def read() -> Document:
        async with running(settings_in(tmp_path_factory.mktemp("openapi"))) as api:
            return Document((await api.client.get("/openapi.json")).json())

    return asyncio.run(read())


def operation_ids() -> list[str]:
    operations = Document(json.loads(REFERENCE.read_text())).operations().values()
    return [operation["operationId"] for operation in operations]


def by_id(document: Document, operation_id: str) -> Schema:
    (found,) = (
        operation
        for operation in document.operations().values()
        if operation["operationId"] == operation_id
    )
    return found


def test_the_operations_are_the_same_ones(theirs: Document, ours: Document) -> None:
    def identify(document: Document) -> dict[tuple[str, str], str]:
        return {place: one["operationId"] for place, one in document.operations().items()}

    assert identify(ours) == identify(theirs)
    assert len(identify(ours)) == 12


def test_what_is_ours_alone_is_marked(ours: Document) -> None:
    path = "/accounts/{account_id}/slurper/jobs/{job_id}"
    retry = ours.root["paths"][f"{path}/retryFailed"]["put"]
    assert retry["x-extension"] is True
    assert {"201", "409", "4XX"} <= retry["responses"].keys()
    resume = ours.root["paths"][f"{path}/resume"]["put"]
    for operation in (retry, resume):
        assert operation["requestBody"]["required"] is False
    assert resume["requestBody"]["x-extension"] is True
    marked = [place for place, one in _all_operations(ours).items() if one.get("x-extension")]
    assert marked == [("patch", path), ("put", f"{path}/retryFailed")]


def test_every_body_is_published_as_one_kind_of_object(ours: Document) -> None:
    """Generated clients cannot build a body that is "something or null"."""
    optional = set()
    for operation in _all_operations(ours).values():
        body = operation.get("requestBody")
        if body is None:
            continue
        schema = body["content"]["application/json"]["schema"]
        assert not schema.keys() & {"anyOf", "allOf", "nullable", "type"}
        kinds = schema.get("oneOf", [schema])
        for kind in kinds:
            name = kind["$ref"].removeprefix("#/components/schemas/")
            assert ours.root["components"]["schemas"][name]["type"] == "object"
        if not body.get("required", False):
            optional.add(operation["operationId"])
            assert schema == {"$ref": "#/components/schemas/NewSecrets"}
    assert optional == {"slurper-resume-job", "slurper-retry-failed"}


def _all_operations(document: Document) -> dict[tuple[str, str], Schema]:
    return {
        (method, path): operation
        for path, methods in document.root["paths"].items()
        for method, operation in methods.items()
    }


@pytest.mark.parametrize("operation_id", operation_ids())
def test_the_parameters_are_the_same(operation_id: str, theirs: Document, ours: Document) -> None:
    expected = theirs.parameters(by_id(theirs, operation_id))
    found = ours.parameters(by_id(ours, operation_id))
    assert found.keys() == expected.keys()
    for name, (required, shape) in expected.items():
        assert found[name][0] is required
        assert list(request_differences(shape, found[name][1], name[1])) == []


@pytest.mark.parametrize("operation_id", operation_ids())
def test_the_request_bodies_are_the_same(
    operation_id: str, theirs: Document, ours: Document
) -> None:
    expected = theirs.body(by_id(theirs, operation_id))
    found = ours.body(by_id(ours, operation_id))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert set(request_differences(expected, found, "body")) <= REQUEST_EXTENSIONS


@pytest.mark.parametrize("operation_id", operation_ids())
def test_the_responses_are_the_same(operation_id: str, theirs: Document, ours: Document) -> None:
    expected = theirs.responses(by_id(theirs, operation_id))
    found = ours.responses(by_id(ours, operation_id))
    assert found.keys() - expected.keys() <= {"409"}
    for status, shape in expected.items():
        differences = set(response_differences(shape, found[status], status))
        if status == "4XX" or status == "409":
            # Theirs allows a link to documentation that ours never sends.
            differences -= {f"{status}.errors[].documentation_url is missing"}
        else:
            # A success has no errors, so their shape does not matter there either.
            differences = {one for one in differences if not one.startswith(f"{status}.errors[]")}
        assert differences <= RESPONSE_EXTENSIONS


def test_the_comparison_sees_differences(theirs: Document) -> None:
    create = by_id(theirs, "slurper-create-job")
    changed = json.loads(json.dumps(theirs.root))
    s3 = changed["components"]["schemas"]["S3Source"]
    s3["required"].remove("bucket")
    s3["properties"]["keys"]["maxItems"] = 9
    s3["properties"]["region"]["nullable"] = False
    del s3["properties"]["endpoint"]
    changed["components"]["schemas"]["Jurisdiction"]["enum"].remove("us")
    shape = theirs.body(create)
    other = Document(changed).body(create)
    assert shape is not None
    assert other is not None
    three = "('default', 'eu', 'fedramp')"
    four = "('default', 'eu', 'fedramp', 'us')"
    assert sorted(request_differences(shape, other, "body")) == [
        f"body.source.r2.jurisdiction enum: {three}, not {four}",
        "body.source.s3 requires ['secret', 'vendor'], not ['bucket', 'secret', 'vendor']",
        "body.source.s3.endpoint is missing",
        "body.source.s3.keys max_items: 9, not 10000",
        "body.source.s3.region nullable: False, not True",
        f"body.target.jurisdiction enum: {three}, not {four}",
    ]
    added = list(request_differences(other, shape, "body"))
    assert "body.source.s3.endpoint is new" in added


def test_the_ways_to_authenticate_are_the_same(theirs: Document, ours: Document) -> None:
    for document in (ours, theirs):
        assert len(document.root["security"]) == 3
    assert ours.root["security"] == theirs.root["security"]
    schemes = ours.root["components"]["securitySchemes"]
    assert schemes == theirs.root["components"]["securitySchemes"]
