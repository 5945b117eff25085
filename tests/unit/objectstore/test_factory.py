"""From what a user writes about a bucket to an address, a dialect and a region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.job.model import Capabilities, Jurisdiction, Location, Vendor
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import (
    AWS,
    AWS_CHINA,
    BACKBLAZE,
    GCS,
    GENERIC,
    R2,
    WASABI,
    of_host,
)
from slurper.objectstore.factory import open_store, resolve
from slurper.objectstore.gcs.store import GcsObjectStore
from slurper.secrets import GcsCredentials, S3Credentials
from slurper.settings import Settings
from tests.servers.gcs.tokens import pem, private_key

PAIR = S3Credentials(access_key_id="A", secret_access_key="S")
ACCOUNT = "0123456789abcdef0123456789abcdef"


def settings(**given: object) -> Settings:
    return Settings.model_validate({"data_dir": Path("unused"), **given})


def address(location: Location, *, account_id: str = ACCOUNT, **given: object) -> StoreAddress:
    return resolve(location, PAIR, account_id=account_id, settings=settings(**given))


def s3(endpoint: str | None = None, region: str | None = None, bucket: str = "bkt") -> Location:
    return Location(vendor=Vendor.S3, bucket=bucket, endpoint=endpoint, region=region)


@pytest.mark.parametrize(
    ("region", "origin", "signs"),
    [
        (None, "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ("eu-west-3", "https://s3.eu-west-3.amazonaws.com", "eu-west-3"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ],
)
def test_amazon_without_an_endpoint(region: str | None, origin: str, signs: str) -> None:
    found = address(s3(region=region))
    assert (found.origin, found.region, found.trusted) == (origin, signs, False)
    assert found.dialect in (AWS, AWS_CHINA)
    assert found.credentials == PAIR


@pytest.mark.parametrize(
    ("jurisdiction", "origin"),
    [
        (None, f"https://{ACCOUNT}.r2.cloudflarestorage.com"),
        (Jurisdiction.DEFAULT, f"https://{ACCOUNT}.r2.cloudflarestorage.com"),
        (Jurisdiction.EU, f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"),
        (Jurisdiction.US, f"https://{ACCOUNT}.us.r2.cloudflarestorage.com"),
        (Jurisdiction.FEDRAMP, f"https://{ACCOUNT}.fedramp.r2.cloudflarestorage.com"),
    ],
)
def test_r2_of_the_account(jurisdiction: Jurisdiction | None, origin: str) -> None:
    location = Location(vendor=Vendor.R2, bucket="bkt", jurisdiction=jurisdiction)
    found = address(location)
    assert (found.origin, found.region, found.dialect) == (origin, "auto", R2)
    assert not found.trusted


def test_the_operators_r2_endpoint_is_trusted_and_may_be_plain() -> None:
    location = Location(vendor=Vendor.R2, bucket="bkt", jurisdiction=Jurisdiction.EU)
    found = address(location, account_id="not/a/host", r2_endpoint="http://127.0.0.1:9000/")
    assert (found.origin, found.dialect, found.trusted) == ("http://127.0.0.1:9000", R2, True)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "https://h/path", "https://u@h"])
def test_an_operators_endpoint_that_cannot_work(endpoint: str) -> None:
    location = Location(vendor=Vendor.R2, bucket="bkt")
    with pytest.raises(errors.ConfigurationError, match="SLURPER_R2_ENDPOINT"):
        address(location, r2_endpoint=endpoint)


def test_an_account_id_must_fit_into_a_host_name() -> None:
    with pytest.raises(errors.ConfigurationError, match="account id"):
        address(Location(vendor=Vendor.R2, bucket="bkt"), account_id="evil.example/")


@pytest.mark.parametrize(
    ("endpoint", "origin", "dialect", "signs"),
    [
        ("https://s3.example.com", "https://s3.example.com", GENERIC, "us-east-1"),
        ("https://S3.Example.COM:443/", "https://s3.example.com", GENERIC, "us-east-1"),
        ("https://s3.example.com:9000", "https://s3.example.com:9000", GENERIC, "us-east-1"),
        ("https://s3.example.com/bkt", "https://s3.example.com", GENERIC, "us-east-1"),
        ("https://s3.example.com/bkt/", "https://s3.example.com", GENERIC, "us-east-1"),
        ("https://bkt.example.com", "https://bkt.example.com", GENERIC, "us-east-1"),
        ("https://[2001:db8::1]:9000", "https://[2001:db8::1]:9000", GENERIC, "us-east-1"),
        ("https://s3.amazonaws.com", "https://s3.amazonaws.com", AWS, "us-east-1"),
        (
            "https://s3.eu-west-1.amazonaws.com",
            "https://s3.eu-west-1.amazonaws.com",
            AWS,
            "eu-west-1",
        ),
        (
            "https://bkt.s3.eu-west-1.amazonaws.com",
            "https://s3.eu-west-1.amazonaws.com",
            AWS,
            "eu-west-1",
        ),
        (
            "https://s3.dualstack.ap-south-1.amazonaws.com",
            "https://s3.dualstack.ap-south-1.amazonaws.com",
            AWS,
            "ap-south-1",
        ),
        (
            "https://s3-us-west-2.amazonaws.com",
            "https://s3-us-west-2.amazonaws.com",
            AWS,
            "us-west-2",
        ),
        (
            "https://s3.cn-north-1.amazonaws.com.cn",
            "https://s3.cn-north-1.amazonaws.com.cn",
            AWS_CHINA,
            "cn-north-1",
        ),
        (
            f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com/bkt",
            f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com",
            R2,
            "auto",
        ),
        (
            "https://s3.eu-central-003.backblazeb2.com",
            "https://s3.eu-central-003.backblazeb2.com",
            BACKBLAZE,
            "eu-central-003",
        ),
        ("https://s3.wasabisys.com", "https://s3.wasabisys.com", WASABI, "us-east-1"),
        ("https://amazonaws.com.evil.example", "https://amazonaws.com.evil.example", GENERIC, None),
        ("https://evilamazonaws.com", "https://evilamazonaws.com", GENERIC, None),
    ],
)
def test_endpoints_users_name(
    endpoint: str, origin: str, dialect: object, signs: str | None
) -> None:
    found = address(s3(endpoint))
    assert (found.origin, found.dialect) == (origin, dialect)
    assert found.region == (signs or "us-east-1")
    assert not found.trusted


def test_a_region_given_beats_the_one_in_the_host() -> None:
    found = address(s3("https://s3.eu-west-1.amazonaws.com", region="eu-west-2"))
    assert found.region == "eu-west-2"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("s3.example.com", "write https"),
        ("s3.example.com:9000", "write https"),
        ("//s3.example.com", "write https"),
        ("ftp://s3.example.com", "start with https"),
        ("http://s3.example.com", "SLURPER_ALLOW_HTTP"),
        ("https://", "host name"),
        ("https://:443", "host name"),
        ("https://user:pass@s3.example.com", "user name"),
        ("https://s3.example.com?x=1", "query"),
        ("https://s3.example.com?", "query"),
        ("https://s3.example.com#", "fragment"),
        ("https://s3.example.com/other", "must not have a path"),
        ("https://s3.example.com/bkt/prefix", "must not have a path"),
        ("https://s3.example.com:99999", "invalid port"),
        ("https://s3.example.com:port", "invalid port"),
        ("https://[::1", "not a valid URL"),
        ("https://s3.exam ple.com", "white space"),
        ("https://s3.exa\nmple.com", "white space"),
        ("https://s3.exämple.com", "xn--"),
        ("https://s3.example.com\\@evil.example", "backslash"),
        ("https://s3..example.com", "host name"),
        ("https://%65vil.example", "host name"),
        ("", "is empty"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, reason: str) -> None:
    with pytest.raises(errors.InvalidField, match=reason) as refused:
        address(s3(endpoint))
    assert refused.value.pointer == "/endpoint"


def test_plain_http_where_the_operator_allows_it() -> None:
    found = address(s3("http://127.0.0.1:9000"), allow_http=True)
    assert (found.origin, found.trusted) == ("http://127.0.0.1:9000", False)
    assert address(s3("http://h:80"), allow_http=True).origin == "http://h"


@pytest.mark.parametrize("region", ["eu west", "a/b", "x" * 65, "", "é"])
def test_regions_that_are_refused(region: str) -> None:
    with pytest.raises(errors.InvalidField) as refused:
        address(s3(region=region))
    assert refused.value.pointer == "/region"


GCS_LOCATION = Location(vendor=Vendor.GCS, bucket="bkt")


def gcs(private_key: str, **given: object) -> StoreAddress:
    credentials = GcsCredentials(client_email="e@x", private_key=private_key)
    return resolve(GCS_LOCATION, credentials, account_id=ACCOUNT, settings=settings(**given))


@pytest.mark.parametrize("pkcs1", [False, True])
def test_google_is_found_where_it_is(pkcs1: bool) -> None:
    found = gcs(pem("right", pkcs1=pkcs1))
    assert (found.origin, found.dialect, found.trusted) == (
        "https://storage.googleapis.com",
        GCS,
        False,
    )
    assert found.token_uri == "https://oauth2.googleapis.com/token"
    assert pem("right", pkcs1=pkcs1) not in repr(found)
    assert isinstance(open_store(found, TransportOptions()), GcsObjectStore)


def test_the_operator_may_put_google_elsewhere() -> None:
    given = {"gcs_endpoint": "http://127.0.0.1:9/", "gcs_token_uri": "http://127.0.0.1:9/token"}
    found = gcs(pem("right"), **given)
    assert (found.origin, found.trusted) == ("http://127.0.0.1:9", True)
    assert found.token_uri == "http://127.0.0.1:9/token"


@pytest.mark.parametrize(
    "given",
    [{"gcs_endpoint": "http://h/path"}, {"gcs_endpoint": "h"}, {"gcs_token_uri": "oauth.example"}],
)
def test_addresses_of_google_that_cannot_be(given: dict[str, str]) -> None:
    with pytest.raises(errors.ConfigurationError, match="SLURPER_GCS_"):
        gcs(pem("right"), **given)


def elliptic() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    pkcs8, plain = PrivateFormat.PKCS8, NoEncryption()
    return key.private_bytes(Encoding.PEM, pkcs8, plain).decode()


def with_passphrase() -> str:
    locked = BestAvailableEncryption(b"passphrase")
    return private_key("right").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def made_of(p: int, q: int, *, e: int = 65537) -> str:
    """A key whose numbers fit together, except that its primes are not primes."""
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(e, p * q),
    )
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def large() -> str:
    """The search for factors of such a key would take minutes."""
    return made_of(2**8000 + 1_000_003, 2**8000 + 1_000_005)


def inconsistent() -> str:
    right = private_key("right").private_numbers()
    numbers = rsa.RSAPrivateNumbers(
        p=right.p,
        q=right.q,
        d=right.d + 2,
        dmp1=right.dmp1,
        dmq1=right.dmq1,
        iqmp=right.iqmp,
        public_numbers=right.public_numbers,
    )
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    "make",
    [lambda: "k", lambda: pem("right")[:900], elliptic, with_passphrase, large, inconsistent],
)
def test_private_keys_that_cannot_sign(make: Callable[[], str]) -> None:
    text = make()
    with pytest.raises(errors.InvalidField, match="RSA private key") as refused:
        gcs(text)
    assert refused.value.pointer == "/secret/privateKey"
    assert all(line not in str(refused.value) for line in text.splitlines()[1:-1])


def test_credentials_must_fit_the_vendor() -> None:
    credentials = GcsCredentials(client_email="e", private_key="k")
    with pytest.raises(errors.InvalidField) as refused:
        resolve(s3(), credentials, account_id=ACCOUNT, settings=settings())
    assert refused.value.pointer == "/secret"


async def test_an_address_opens_without_a_request() -> None:
    store = open_store(address(s3()), TransportOptions())
    assert store.dialect is AWS
    await store.close()


def test_domains_are_matched_whole() -> None:
    assert of_host("S3.amazonaws.com.") is AWS
    assert of_host("notamazonaws.com") is GENERIC


def test_only_stores_that_know_it_are_told_who_pays() -> None:
    assert address(s3(), requester_pays=True).requester_pays
    assert not address(s3()).requester_pays
    for location in (s3("https://s3.example.com"), Location(vendor=Vendor.R2, bucket="bkt")):
        assert not address(location, requester_pays=True).requester_pays


@pytest.mark.parametrize(
    ("endpoint", "origin", "name"),
    [
        ("https://s3.fr-par.scw.cloud", "https://s3.fr-par.scw.cloud", "scaleway"),
        ("https://bkt.s3.nl-ams.scw.cloud", "https://s3.nl-ams.scw.cloud", "scaleway"),
        (
            "https://bkt.s3.oss-cn-beijing.aliyuncs.com",
            "https://s3.oss-cn-beijing.aliyuncs.com",
            "alibaba",
        ),
        (
            "https://cos.eu-frankfurt.myqcloud.com",
            "https://cos.eu-frankfurt.myqcloud.com",
            "tencent",
        ),
        ("https://gateway.storjshare.io/bkt", "https://gateway.storjshare.io", "storj"),
        (
            "https://fra1.digitaloceanspaces.com",
            "https://fra1.digitaloceanspaces.com",
            "digitalocean",
        ),
        ("https://storage.googleapis.com", "https://storage.googleapis.com", "gcs-interoperable"),
    ],
)
def test_providers_are_known_by_their_hosts(endpoint: str, origin: str, name: str) -> None:
    found = address(s3(endpoint))
    assert (found.origin, found.dialect.name) == (origin, name)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("s3.nl-ams.scw.cloud", "nl-ams"),
        ("s3.eu-central-1.wasabisys.com", "eu-central-1"),
        ("s3.wasabisys.com", "us-east-1"),
        ("s3.oss-ap-southeast-1.aliyuncs.com", "oss-ap-southeast-1"),
        ("oss-cn-beijing-internal.aliyuncs.com", "oss-cn-beijing"),
        ("oss-accelerate.aliyuncs.com", "oss-cn-hangzhou"),
        ("cos.eu-frankfurt.myqcloud.com", "eu-frankfurt"),
        ("fra1.digitaloceanspaces.com", "us-east-1"),
        ("storage.googleapis.com", "auto"),
        ("s3.eu-central-1.example.com", "us-east-1"),
    ],
)
def test_a_host_names_its_region(host: str, region: str) -> None:
    assert address(s3(f"https://{host}")).region == region
    assert address(s3(f"https://{host}", region="given")).region == "given"


@pytest.mark.parametrize("checksum", ["crc32c", None], ids=["as older jobs keep it", "as now"])
def test_a_target_that_verifies_no_checksum_gets_none(checksum: str | None) -> None:
    found = Capabilities(checksum=checksum, verifies_checksum=False)
    location = s3(endpoint="https://s3.example.com")
    address = resolve(location, PAIR, account_id=ACCOUNT, settings=settings(), found=found)
    assert address.dialect.assumed
    assert address.dialect.checksum is None
