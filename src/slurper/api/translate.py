"""Translates the wire models into the domain's values, and back."""

from __future__ import annotations

from datetime import UTC, datetime

from slurper import secrets
from slurper.api import schemas
from slurper.job import model


def job_spec(body: schemas.CreateJob) -> model.JobSpec:
    """Return what the request asks for."""
    return model.JobSpec(
        source=location(body.source),
        target=location(body.target),
        prefix=body.source.path_prefix or "",
        keys=selected_keys(body.source),
        overwrite=body.overwrite,
        options=_options(body.options),
    )


def job_secrets(body: schemas.CreateJob) -> secrets.JobSecrets:
    """Return the credentials of both sides."""
    return secrets.JobSecrets(source=credentials(body.source), target=credentials(body.target))


def location(side: schemas.AnySide) -> model.Location:
    """Return where `side` is."""
    vendor = model.Vendor(side.vendor)
    if isinstance(side, schemas.S3Side):
        return model.Location(
            vendor=vendor, bucket=side.bucket, endpoint=side.endpoint, region=side.region or None
        )
    if isinstance(side, schemas.R2Side):
        return model.Location(vendor=vendor, bucket=side.bucket, jurisdiction=side.jurisdiction)
    return model.Location(vendor=vendor, bucket=side.bucket)


def new_credentials(
    body: schemas.NewSecrets,
) -> tuple[secrets.Credentials | None, secrets.Credentials | None]:
    """Return the new credentials of source and target; None for a side that keeps its own."""
    sides = (body.source, body.target)
    source, target = (None if side is None else credentials(side) for side in sides)
    return source, target


def credentials(side: schemas.AnySide | schemas.NewSecret) -> secrets.Credentials:
    """Return what `side` signs with."""
    if isinstance(side.secret, schemas.GcsSecret):
        return secrets.GcsCredentials(
            client_email=side.secret.client_email,
            private_key=side.secret.private_key.get_secret_value(),
        )
    token = side.secret.session_token
    return secrets.S3Credentials(
        access_key_id=side.secret.access_key_id,
        secret_access_key=side.secret.secret_access_key.get_secret_value(),
        session_token=None if token is None else token.get_secret_value(),
    )


def selected_keys(source: schemas.Selected) -> tuple[str, ...] | None:
    """Return the source's explicit keys as they were given, or None."""
    return None if source.keys is None else tuple(source.keys)


def _options(options: schemas.Options | None) -> model.JobOptions:
    if options is None:
        return model.JobOptions()
    types = options.content_types or schemas.ContentTypes()
    return model.JobOptions(
        skip_empty=options.skip_empty,
        include_content_types=tuple(types.include or ()),
        exclude_content_types=tuple(types.exclude or ()),
        validate_media=options.validate_media,
        strip_prefix=options.strip_prefix,
        max_object_bytes=options.max_object_size,
        bandwidth_limit=options.bandwidth_limit,
        request_rate_limit=options.request_rate_limit,
        server_side_copy=options.server_side_copy,
        count_objects=options.count_objects,
        require=tuple(sorted(set(options.require or ()))),
    )


def limit_changes(body: schemas.ChangeJob) -> model.LimitChanges:
    """Return the limits that the request names."""
    limits, changes = body.options, model.LimitChanges()
    if "bandwidth_limit" in limits.model_fields_set:
        changes["bandwidth_limit"] = limits.bandwidth_limit
    if "request_rate_limit" in limits.model_fields_set:
        changes["request_rate_limit"] = limits.request_rate_limit
    return changes


def job_view(job: model.Job) -> schemas.JobView:
    """Return what a client sees of a job."""
    return schemas.JobView(
        id=job.id,
        created_at=timestamp(job.created_at),
        finished_at=_optional_timestamp(job.finished_at),
        overwrite=job.spec.overwrite,
        source=_source_view(job.spec),
        status=job.status,
        target=_target_view(job.spec.target),
        options=_options_view(job.spec.options),
        retry_of=job.retry_of,
        created_by=None if job.created_by is None else _readable(job.created_by),
        capabilities=_capabilities_view(job.capabilities),
        key_count=job.key_count,
    )


def _capabilities_view(found: model.JobCapabilities) -> schemas.JobCapabilitiesView:
    source, target = found.source, found.target
    return schemas.JobCapabilitiesView(
        source=schemas.SourceCapabilitiesView(
            list_version=source.list_version,
            key_order=source.key_order,
            clock_ahead_seconds=source.clock_ahead_seconds,
            conditional_reads=source.obeys_if_match,
            etags_are_md5=source.etags_are_md5s,
            part_etags_are_md5=source.etags_of_parts_are_md5s,
        ),
        target=schemas.TargetCapabilitiesView(
            list_version=target.list_version,
            key_order=target.key_order,
            clock_ahead_seconds=target.clock_ahead_seconds,
            conditional_reads=target.obeys_if_match,
            checksum=target.checksum,
            checksum_verified=target.verifies_checksum,
            trailing_checksum_verified=target.trailing_checksum,
            md5_verified=target.verifies_md5,
            md5_required=target.wants_md5,
            conditional_writes=target.conditional_put,
            conditional_completions=target.conditional_completion,
            unkept_keys=_list_of(target.unkept_keys),
            unkept_headers=_list_of(target.unkept_headers),
        ),
    )


def _list_of(found: tuple[str, ...] | None) -> list[str] | None:
    return None if found is None else list(found)


def _source_view(spec: model.JobSpec) -> schemas.SourceView:
    source = spec.source
    prefix = spec.prefix or None
    keys = None if spec.keys is None else [_readable(key) for key in spec.keys]
    match source.vendor:
        case model.Vendor.S3:
            return schemas.S3SourceView(
                bucket=source.bucket, endpoint=source.endpoint, path_prefix=prefix, keys=keys
            )
        case model.Vendor.GCS:
            return schemas.GcsSourceView(bucket=source.bucket, path_prefix=prefix, keys=keys)
        case model.Vendor.R2:
            return schemas.R2SourceView(
                bucket=source.bucket,
                jurisdiction=_jurisdiction(source),
                path_prefix=prefix,
                keys=keys,
            )


def _target_view(target: model.Location) -> schemas.TargetView:
    match target.vendor:
        case model.Vendor.S3:
            return schemas.S3TargetView(bucket=target.bucket, endpoint=target.endpoint)
        case model.Vendor.GCS:
            return schemas.GcsTargetView(bucket=target.bucket)
        case model.Vendor.R2:
            return schemas.R2TargetView(bucket=target.bucket, jurisdiction=_jurisdiction(target))


def _jurisdiction(location: model.Location) -> model.Jurisdiction:
    return location.jurisdiction or model.Jurisdiction.DEFAULT


def _options_view(options: model.JobOptions) -> schemas.OptionsView:
    return schemas.OptionsView(
        skip_empty=options.skip_empty,
        content_types=schemas.ContentTypesView(
            include=list(options.include_content_types),
            exclude=list(options.exclude_content_types),
        ),
        validate_media=options.validate_media,
        strip_prefix=options.strip_prefix,
        max_object_size=options.max_object_bytes,
        bandwidth_limit=options.bandwidth_limit,
        request_rate_limit=options.request_rate_limit,
        server_side_copy=options.server_side_copy,
        count_objects=options.count_objects,
        require=list(options.require),
    )


def progress_view(progress: model.Progress) -> schemas.JobProgressView:
    """Return a job's counters as a client sees them."""
    counts, pace = progress.counts, progress.pace
    left = pace.seconds_left
    return schemas.JobProgressView(
        id=progress.job_id,
        created_at=timestamp(progress.created_at),
        finished_at=_optional_timestamp(progress.finished_at),
        status=progress.status,
        objects=counts.objects,
        transferred_objects=counts.transferred,
        skipped_objects=counts.skipped,
        failed_objects=counts.failed,
        transferred_bytes=counts.transferred_bytes,
        objects_per_second=round(pace.objects_per_second, 1),
        bytes_per_second=round(pace.bytes_per_second, 1),
        total_objects=progress.whole.objects,
        total_bytes=progress.whole.size,
        estimated_seconds_left=None if left is None else round(left, 1),
        throttled_share=schemas.ThrottledShareView(
            source=round(pace.source_throttled, 4), target=round(pace.target_throttled, 4)
        ),
        active_workers=pace.active_workers,
        waiting_for=list(progress.waiting_for),
    )


def log_view(job_id: str, entry: model.LogEntry) -> schemas.JobLogView:
    """Return one log entry as a client sees it."""
    return schemas.JobLogView(
        created_at=timestamp(entry.created_at),
        job=job_id,
        log_type=entry.log_type,
        message=None if entry.message is None else _readable(entry.message),
        object_key=None if entry.object_key is None else _readable(entry.object_key),
    )


def _readable(text: str) -> str:
    """Return text that JSON can hold. Bytes of a key that are not UTF-8 become U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def timestamp(moment: datetime) -> str:
    """Return an aware time in the form of the API: `2026-03-19T15:46:20.000Z`."""
    utc = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return utc.removesuffix("+00:00") + "Z"


def _optional_timestamp(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)
