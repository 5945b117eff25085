"""Valid requests, to be broken in one place each."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"

ABSENT = object()
"""Removes the member it is given for."""


def changed(body: Json, **changes: object) -> Json:
    """Return the body with members replaced, added, or (`ABSENT`) removed."""
    merged = {**body, **changes}
    return {name: value for name, value in merged.items() if value is not ABSENT}


def s3_secret(**changes: object) -> Json:
    return changed({"accessKeyId": "AKIAEXAMPLE", "secretAccessKey": "s3cr3t/+value="}, **changes)


def gcs_secret(**changes: object) -> Json:
    email = "mover@project.iam.gserviceaccount.com"
    return changed({"clientEmail": email, "privateKey": PEM}, **changes)


def s3_source(**changes: object) -> Json:
    body = {
        "vendor": "s3",
        "bucket": "source-bucket",
        "secret": s3_secret(),
        # Nothing listens on the discard port: a request that gets past validation shows as a 403.
        "endpoint": "https://127.0.0.1:9",
    }
    return changed(body, **changes)


def r2_source(**changes: object) -> Json:
    return changed({"vendor": "r2", "bucket": "source-bucket", "secret": s3_secret()}, **changes)


def gcs_source(**changes: object) -> Json:
    return changed({"vendor": "gcs", "bucket": "source-bucket", "secret": gcs_secret()}, **changes)


def r2_target(**changes: object) -> Json:
    return changed({"vendor": "r2", "bucket": "target-bucket", "secret": s3_secret()}, **changes)


def create(**changes: object) -> Json:
    return changed({"source": s3_source(), "target": r2_target()}, **changes)


def from_s3(**changes: object) -> Json:
    return create(source=s3_source(**changes))


def from_r2(**changes: object) -> Json:
    return create(source=r2_source(**changes))


def from_gcs(**changes: object) -> Json:
    return create(source=gcs_source(**changes))


def to_r2(**changes: object) -> Json:
    return create(target=r2_target(**changes))
