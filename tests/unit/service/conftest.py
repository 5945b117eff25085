"""A service with a real S3 server on both sides of its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from slurper.database.leases import LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.demo.servers import S3Server
from slurper.job.model import JobSpec, Location, Vendor
from slurper.secrets import JobSecrets, S3Credentials, Sealer
from slurper.service.jobs import JobService
from slurper.settings import Settings

ACCOUNT = "a" * 32


@dataclass
class Office:
    """A service with what it stands on, and two buckets it can use."""

    service: JobService
    store: JobStore
    work: WorkStore
    """What a driver would do is done by the tests."""
    sealer: Sealer
    spec: JobSpec
    secrets: JobSecrets
    woken: list[None] = field(default_factory=list)

    async def create(self, **changes: object) -> str:
        return await self.service.create(
            ACCOUNT,
            replace(self.spec, **changes),  # type: ignore[arg-type]
            self.secrets,
        )


@pytest.fixture
async def office(
    tmp_path: Path, ministack: S3Server, make_bucket: Callable[[S3Server], str]
) -> AsyncIterator[Office]:
    settings = Settings(
        data_dir=tmp_path,
        allow_http=True,
        allow_private_endpoints=True,
        max_concurrent_jobs=2,
        r2_endpoint=ministack.endpoint,
    )
    pair = S3Credentials(
        access_key_id=ministack.access_key_id, secret_access_key=ministack.secret_access_key
    )
    source = Location(
        vendor=Vendor.S3,
        bucket=make_bucket(ministack),
        endpoint=ministack.endpoint,
        region=ministack.region,
    )
    target = Location(vendor=Vendor.R2, bucket=make_bucket(ministack))
    store = await JobStore.open(settings.resolved_database_url)
    lease = await LeaseStore(store.database).acquire("driver", 3600)
    assert lease is not None
    sealer = Sealer((Fernet.generate_key().decode(),))
    woken: list[None] = []
    service = JobService(store, sealer, settings, wake=lambda: woken.append(None))
    yield Office(
        service=service,
        store=store,
        work=WorkStore(store.database, lease),
        sealer=sealer,
        spec=JobSpec(source=source, target=target),
        secrets=JobSecrets(source=pair, target=pair),
        woken=woken,
    )
    await store.close()
