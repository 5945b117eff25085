"""What is accepted, and what it comes to in the domain's values."""

from __future__ import annotations

from typing import Any

import pytest

from slurper.api import schemas, translate
from slurper.job import rules
from slurper.job.model import JobOptions, JobSpec, Jurisdiction, Location, Vendor
from slurper.secrets import GcsCredentials, S3Credentials
from tests.unit.api import bodies
from tests.unit.api.bodies import ABSENT

S3 = Location(vendor=Vendor.S3, bucket="source-bucket", endpoint="https://127.0.0.1:9")
R2 = Location(vendor=Vendor.R2, bucket="target-bucket", jurisdiction=Jurisdiction.DEFAULT)


def spec_of(body: bodies.Json) -> JobSpec:
    return translate.job_spec(schemas.CreateJob.model_validate(body))


def test_the_defaults_are_upstreams() -> None:
    spec = spec_of(bodies.create())
    assert spec == JobSpec(source=S3, target=R2, overwrite=True, options=JobOptions())
    assert (spec.prefix, spec.keys) == ("", None)


def test_null_stands_for_absent_wherever_the_spec_allows_it() -> None:
    nothing = {"endpoint": None, "region": None, "pathPrefix": None, "keys": None}
    spec = spec_of(bodies.create(source=bodies.s3_source(**nothing), options=None))
    assert spec.source == Location(vendor=Vendor.S3, bucket="source-bucket")
    options: dict[str, Any] = {
        "contentTypes": {"include": None, "exclude": None},
        "maxObjectSize": None,
        "bandwidthLimit": None,
        "requestRateLimit": None,
    }
    assert spec_of(bodies.create(options=options)).options == JobOptions()
    assert spec_of(bodies.create(options={"contentTypes": None})).options == JobOptions()


def test_null_stands_for_absent_where_another_vendor_or_side_has_the_member() -> None:
    nothing = {"endpoint": None, "region": None, "pathPrefix": None, "keys": None}
    source = bodies.r2_source()
    body = bodies.create(
        source={**source, **nothing, "secret": bodies.s3_secret(clientEmail=None)},
        target=bodies.r2_target(**nothing, path_prefix=None),
    )
    assert spec_of(body) == spec_of(bodies.create(source=source))


@pytest.mark.parametrize(
    "prefixes",
    [
        {"path_prefix": "in/"},
        {"path_prefix": "in/", "pathPrefix": None},
        {"path_prefix": "in/", "pathPrefix": "in/"},
        {"path_prefix": None, "pathPrefix": "in/"},
    ],
)
@pytest.mark.parametrize("source", [bodies.s3_source(), bodies.r2_source(), bodies.gcs_source()])
def test_path_prefix_in_snake_case_is_path_prefix(
    prefixes: bodies.Json, source: bodies.Json
) -> None:
    assert spec_of(bodies.create(source={**source, **prefixes})).prefix == "in/"


@pytest.mark.parametrize("jurisdiction", ["default", "eu", "us", "fedramp"])
def test_all_jurisdictions(jurisdiction: str) -> None:
    body = bodies.create(
        source=bodies.r2_source(jurisdiction=jurisdiction),
        target=bodies.r2_target(jurisdiction=jurisdiction),
    )
    spec = spec_of(body)
    assert spec.source.jurisdiction == spec.target.jurisdiction == Jurisdiction(jurisdiction)


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://s3.example.com", "https://s3.example.com"),
        ("https://s3.example.com/", "https://s3.example.com"),
        ("HTTPS://S3.Example.COM:9000", "https://s3.example.com:9000"),
        ("https://s3.example.com/source-bucket", "https://s3.example.com"),
        ("https://s3.example.com/source-bucket/", "https://s3.example.com"),
        ("https://127.0.0.1:443", "https://127.0.0.1:443"),
        ("https://[2001:DB8::1]:9000", "https://[2001:db8::1]:9000"),
        ("https://xn--bro-hoa.example", "https://xn--bro-hoa.example"),
        ("https://store_1.internal.", "https://store_1.internal."),
    ],
)
def test_endpoints_come_down_to_an_origin(given: str, origin: str) -> None:
    assert spec_of(bodies.from_s3(endpoint=given)).source.endpoint == origin


def test_plain_http_is_for_the_settings_to_allow() -> None:
    body = bodies.from_s3(endpoint="http://127.0.0.1:9000")
    assert spec_of(body).source.endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize("name", ["abc", "a.b-c_D", "A" * 255, "my.bucket.2024"])
def test_s3_buckets(name: str) -> None:
    assert spec_of(bodies.from_s3(bucket=name)).source.bucket == name


@pytest.mark.parametrize("name", ["abc", "0-0", "b" * 63])
def test_r2_buckets(name: str) -> None:
    assert spec_of(bodies.to_r2(bucket=name)).target.bucket == name


@pytest.mark.parametrize("name", ["abc", "a_b.c-d", "b" * 63, ".".join(["b" * 63] * 3)])
def test_gcs_buckets(name: str) -> None:
    assert spec_of(bodies.from_gcs(bucket=name)).source.bucket == name


def test_keys_are_taken_as_they_are() -> None:
    within = spec_of(bodies.from_s3(keys=["in/b", "in/"], pathPrefix="in/"))
    assert (within.prefix, within.keys) == ("in/", ("in/b", "in/"))


def test_the_largest_number_of_keys() -> None:
    keys = [f"{number:05}" for number in range(rules.MAX_KEYS)]
    assert spec_of(bodies.from_s3(keys=keys)).keys == tuple(keys)


def test_options() -> None:
    options = {
        "skipEmpty": True,
        "contentTypes": {"include": ["Image/*", "*/*"], "exclude": ["application/x+json"]},
        "validateMedia": True,
        "stripPrefix": True,
        "maxObjectSize": 2**63 - 1,
        "bandwidthLimit": 1,
        "requestRateLimit": 2**63 - 1,
        "serverSideCopy": False,
        "countObjects": True,
        "require": ["Metadata", "content-encoding", "metadata"],
    }
    assert spec_of(bodies.create(overwrite=False, options=options)) == JobSpec(
        source=S3,
        target=R2,
        overwrite=False,
        options=JobOptions(
            skip_empty=True,
            include_content_types=("image/*", "*/*"),
            exclude_content_types=("application/x+json",),
            validate_media=True,
            strip_prefix=True,
            max_object_bytes=2**63 - 1,
            bandwidth_limit=1,
            request_rate_limit=2**63 - 1,
            server_side_copy=False,
            count_objects=True,
            require=("content-encoding", "metadata"),
        ),
    )


def test_secrets_arrive_whole_and_show_nowhere() -> None:
    body = bodies.create(
        source=bodies.gcs_source(), target=bodies.r2_target(secret=bodies.s3_secret())
    )
    parsed = schemas.CreateJob.model_validate(body)
    secrets = translate.job_secrets(parsed)
    email = "mover@project.iam.gserviceaccount.com"
    assert secrets.source == GcsCredentials(client_email=email, private_key=bodies.PEM)
    assert secrets.target == S3Credentials(
        access_key_id="AKIAEXAMPLE", secret_access_key="s3cr3t/+value="
    )
    for shown in (repr(parsed), str(parsed), repr(secrets), parsed.model_dump_json()):
        assert "s3cr3t" not in shown
        assert "MIIE" not in shown


@pytest.mark.parametrize(
    "key",
    [
        bodies.PEM,
        bodies.PEM.strip(),
        "\n" + bodies.PEM.replace("\n", "\r\n"),
        bodies.PEM.replace("PRIVATE", "RSA PRIVATE"),
        bodies.PEM.replace("\n", "\\n"),
        bodies.PEM.replace("\n", "\\r\\n"),
        bodies.PEM.replace("\n", "\\\\n"),
        bodies.PEM.replace("\n", " "),
        f' "{bodies.PEM}", ',
    ],
)
def test_private_keys_as_they_come(key: str) -> None:
    body = bodies.from_gcs(secret=bodies.gcs_secret(privateKey=key))
    side = schemas.CreateJob.model_validate(body).source
    found = translate.credentials(side)
    assert isinstance(found, GcsCredentials)
    assert found.private_key == bodies.PEM.replace("PRIVATE", kind_of(key))


def kind_of(key: str) -> str:
    return "RSA PRIVATE" if "RSA" in key else "PRIVATE"


def test_a_hostile_private_key_takes_no_time() -> None:
    # One quantifier too many in the pattern, and this would take minutes.
    spaces = "-----BEGIN PRIVATE KEY-----" + " \n" * 8_000
    body = bodies.from_gcs(secret=bodies.gcs_secret(privateKey=spaces))
    with pytest.raises(ValueError, match="BEGIN PRIVATE KEY"):
        schemas.CreateJob.model_validate(body)


def test_s3_and_gcs_targets_are_a_superset() -> None:
    to_s3 = spec_of(bodies.create(target=bodies.s3_source(region="eu-central-1")))
    assert to_s3.target == Location(
        vendor=Vendor.S3,
        bucket="source-bucket",
        endpoint="https://127.0.0.1:9",
        region="eu-central-1",
    )
    to_gcs = spec_of(bodies.create(target=bodies.gcs_source()))
    assert to_gcs.target == Location(vendor=Vendor.GCS, bucket="source-bucket")


@pytest.mark.parametrize("region", ["", None, ABSENT])
def test_an_empty_region_counts_as_not_given(region: object) -> None:
    assert spec_of(bodies.from_s3(region=region)).source.region is None


def test_temporary_credentials_bring_their_token() -> None:
    body = bodies.from_s3(secret=bodies.s3_secret(sessionToken="t0ken=="))
    given = translate.job_secrets(schemas.CreateJob.model_validate(body))
    assert isinstance(given.source, S3Credentials)
    assert isinstance(given.target, S3Credentials)
    assert (given.source.session_token, given.target.session_token) == ("t0ken==", None)
