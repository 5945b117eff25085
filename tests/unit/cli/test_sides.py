from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurper import errors
from slurper.cli import sides
from slurper.cli.side_options import SideOptions
from slurper.cli.sides import BucketAccess
from slurper.job.model import Jurisdiction, Location, Vendor
from slurper.secrets import GcsCredentials, S3Credentials
from slurper.settings import Settings
from tests.unit.api.bodies import PEM

KEYS = SideOptions(access_key_id="id", secret_access_key="secret")
CONFIG = """
[default]
region = from-default
endpoint_url = https://default.example

[profile plain]
region = from-profile
endpoint_url = https://plain.example

[profile nested]
services = local
[services local]
s3 =
  endpoint_url = https://nested.example
  addressing_style = path

[profile process]
credential_process = /bin/echo '{"Version": 1, "AccessKeyId": "p", "SecretAccessKey": "q"}'
"""
CREDENTIALS = """
[default]
aws_access_key_id = default-id
aws_secret_access_key = default-secret
[plain]
aws_access_key_id = plain-id
aws_secret_access_key = plain-secret
aws_session_token = plain-token
"""


def key_id_of(side: BucketAccess) -> str:
    assert isinstance(side.credentials, S3Credentials)
    return side.credentials.access_key_id


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket", (Vendor.S3, "bucket", "")),
        ("s3://bucket/", (Vendor.S3, "bucket", "")),
        ("r2://bucket/a/b", (Vendor.R2, "bucket", "a/b")),
        ("s3://bucket//lead", (Vendor.S3, "bucket", "/lead")),
        ("s3://bucket/a//b/../c ?#%2F", (Vendor.S3, "bucket", "a//b/../c ?#%2F")),
        ("gs://bucket//a/../b", (Vendor.GCS, "bucket", "/a/../b")),
        ("gcs://bucket", (Vendor.GCS, "bucket", "")),
        ("s3://bucket/x://y", (Vendor.S3, "bucket", "x://y")),
    ],
)
def test_a_prefix_is_taken_byte_for_byte(url: str, expected: tuple[Vendor, str, str]) -> None:
    assert sides.parse_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", "bucket", "bucket/key", "http://bucket", "s3:bucket", "S3://b"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="write s3://BUCKET"):
        sides.parse_url(url)


@pytest.mark.usefixtures("profiles")
def test_options_beat_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://environment.example")
    options = SideOptions(
        endpoint="https://option.example",
        region="from-option",
        profile="plain",
        access_key_id="id",
        secret_access_key="secret",
        session_token="token",
    )
    side = sides.resolve("source", "s3://bucket/p", options)
    assert side.location == Location(
        vendor=Vendor.S3, bucket="bucket", endpoint="https://option.example", region="from-option"
    )
    assert side.credentials == S3Credentials(
        access_key_id="id", secret_access_key="secret", session_token="token"
    )
    assert side.prefix == "p"


@pytest.mark.usefixtures("profiles")
def test_a_named_profile_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://environment.example")
    monkeypatch.setenv("AWS_REGION", "from-environment")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment-secret")
    side = sides.resolve("source", "s3://bucket", SideOptions(profile="plain"))
    assert side.location.endpoint == "https://plain.example"
    assert side.location.region == "from-profile"
    assert side.credentials == S3Credentials(
        access_key_id="plain-id", secret_access_key="plain-secret", session_token="plain-token"
    )


@pytest.mark.usefixtures("profiles")
def test_the_environment_beats_the_default_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://any-service.example")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://environment.example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "from-environment")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment-secret")
    side = sides.resolve("target", "s3://bucket", SideOptions())
    assert side.location.endpoint == "https://environment.example"
    assert side.location.region == "from-environment"
    assert key_id_of(side) == "environment-id"


@pytest.mark.usefixtures("profiles")
def test_the_default_profile_comes_last() -> None:
    side = sides.resolve("target", "s3://bucket", SideOptions())
    assert side.location.endpoint == "https://default.example"
    assert side.location.region == "from-default"
    assert key_id_of(side) == "default-id"


@pytest.mark.usefixtures("profiles")
def test_aws_profile_names_the_default_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "plain")
    side = sides.resolve("target", "s3://bucket", SideOptions())
    assert side.location.endpoint == "https://plain.example"
    assert key_id_of(side) == "plain-id"


@pytest.mark.usefixtures("profiles")
def test_a_services_section_gives_the_endpoint() -> None:
    options = SideOptions(profile="nested", access_key_id="id", secret_access_key="secret")
    side = sides.resolve("source", "s3://bucket", options)
    assert side.location.endpoint == "https://nested.example"


@pytest.mark.usefixtures("profiles")
def test_a_credential_process_is_asked() -> None:
    side = sides.resolve("source", "s3://bucket", SideOptions(profile="process"))
    assert key_id_of(side) == "p"


@pytest.mark.usefixtures("profiles")
def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match="'absent' gives no credentials"):
        sides.resolve("source", "s3://bucket", SideOptions(profile="absent"))


def test_a_broken_configuration_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("region = without a section")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(errors.ConfigurationError, match="config cannot be read"):
        sides.resolve("source", "s3://bucket", KEYS)


@pytest.mark.usefixtures("profiles")
def test_r2_takes_nothing_but_credentials_from_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://environment.example")
    monkeypatch.setenv("AWS_REGION", "from-environment")
    options = SideOptions(profile="plain", jurisdiction=Jurisdiction.EU)
    side = sides.resolve("target", "r2://bucket", options)
    assert side.location == Location(
        vendor=Vendor.R2, bucket="bucket", jurisdiction=Jurisdiction.EU
    )
    assert key_id_of(side) == "plain-id"


@pytest.mark.parametrize(
    ("account_id", "r2_endpoint", "expected"),
    [("acc", None, "acc"), (None, "https://r2.example", "local"), ("acc", "https://x", "acc")],
)
def test_the_account_of_r2(account_id: str | None, r2_endpoint: str | None, expected: str) -> None:
    source, target = (sides.resolve("x", url, KEYS) for url in ("s3://a", "r2://b"))
    settings = Settings(r2_endpoint=r2_endpoint)
    assert sides.account(source, target, account_id, settings) == expected


def test_without_r2_the_account_does_not_matter() -> None:
    source, target = (sides.resolve("x", url, KEYS) for url in ("s3://a", "s3://b"))
    assert sides.account(source, target, "acc", Settings()) == "local"


def test_secrets_do_not_show() -> None:
    options = SideOptions(access_key_id="id", secret_access_key="hush", session_token="whisper")
    side = sides.resolve("source", "s3://bucket", options)
    assert "hush" not in repr((options, side))
    assert "whisper" not in repr((options, side))


# Google Cloud Storage


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "account.json"
    path.write_text(json.dumps({"client_email": "a@b", "private_key": PEM, "type": "x"}))
    return path


def test_a_service_account_comes_from_its_file(key_file: Path) -> None:
    side = sides.resolve("source", "gs://bucket/p", SideOptions(credentials_file=key_file))
    assert side.credentials == GcsCredentials(client_email="a@b", private_key=PEM)
    assert (side.location, side.prefix) == (Location(vendor=Vendor.GCS, bucket="bucket"), "p")


def test_googles_own_variable_is_honoured(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://environment.example")
    side = sides.resolve("target", "gcs://bucket", SideOptions())
    assert isinstance(side.credentials, GcsCredentials)
    assert side.location.endpoint is None


def test_a_key_file_may_have_been_through_other_hands(key_file: Path) -> None:
    account = {"client_email": " a@b\n", "private_key": '"' + PEM.replace("\n", "\\\\n") + '"'}
    key_file.write_text("\ufeff" + json.dumps(account), encoding="utf-8")
    side = sides.resolve("source", "gs://bucket", SideOptions(credentials_file=key_file))
    assert side.credentials == GcsCredentials(client_email="a@b", private_key=PEM)


def test_a_key_file_whose_key_is_none_is_named_and_not_shown(key_file: Path) -> None:
    key_file.write_text(json.dumps({"client_email": "a@b", "private_key": "hush" + PEM[9:]}))
    with pytest.raises(
        errors.ConfigurationError, match=r"account\.json: its private_key"
    ) as refused:
        sides.resolve("source", "gs://bucket", SideOptions(credentials_file=key_file))
    assert "hush" not in str(refused.value)
    assert "MIIE" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_email": "a@b", "private_key": 1}'])
def test_a_file_that_is_no_key_file_is_named(key_file: Path, text: str) -> None:
    key_file.write_text(text)
    with pytest.raises(errors.ConfigurationError, match=r"account\.json is not the JSON key file"):
        sides.resolve("source", "gs://bucket", SideOptions(credentials_file=key_file))


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("gs://bucket", SideOptions(), "GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs://bucket", SideOptions(credentials_file=Path("/absent")), "cannot read /absent"),
        ("gs://bucket", SideOptions(profile="x"), "--source-profile: not for gs://"),
        ("gs://bucket", SideOptions(access_key_id="x"), "--source-access-key-id: not for gs://"),
        ("s3://bucket", SideOptions(credentials_file=Path("x")), "is for gs:// only"),
    ],
)
def test_what_does_not_go_together_is_said(url: str, options: SideOptions, says: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=says):
        sides.resolve("source", url, options)
