"""The models of the API's JSON, with its camelCase names.

Requests are strict: they accept no `"true"` for true and no 1 for "1". They refuse unknown members,
and check values by `job.rules`. Views have no member for a secret or a region, so no answer can
show one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Literal, NotRequired, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from slurper.errors import InvalidField
from slurper.job import model, rules

Payload = TypeVar("Payload")
Given = TypeVar("Given")

OTHER_PATH_PREFIX = "path_prefix"
"""Cloudflare's SDK for Python, up to 4.3.1, sends `pathPrefix` under this name."""


def _obeys(rule: Callable[[Any], Any]) -> AfterValidator:
    """Check a value by a rule. In this form pydantic reports all wrong fields together."""
    return AfterValidator(lambda value: _checked(rule, value))


def _checked(rule: Callable[..., Given], *value: object) -> Given:
    try:
        return rule(*value)
    except InvalidField as error:
        # Pydantic would replace `{name}` in a template. Our texts must stay as they are.
        raise PydanticCustomError(error.kind, "{text}", {"text": error.message}) from error


def _secretly(rule: Callable[[str], str]) -> AfterValidator:
    """Check a secret by a rule."""
    return _obeys(lambda secret: SecretStr(rule(secret.get_secret_value())))


# Strict mode would ask for an instance of the enum, which JSON cannot hold. Without it, still only
# the exact strings are accepted.
Jurisdiction = Annotated[model.Jurisdiction, Field(strict=False)]
Key = Annotated[str, _obeys(rules.object_key)]
# Fail fast: otherwise a list of many wrong keys would become as many errors.
Keys = Annotated[
    list[Key],
    Field(max_length=rules.MAX_KEYS, fail_fast=True),
    _obeys(rules.not_empty),
]
PathPrefix = Annotated[str, _obeys(rules.path_prefix)]
R2Bucket = Annotated[str, _obeys(rules.r2_bucket)]
S3Bucket = Annotated[str, _obeys(rules.s3_bucket)]
GcsBucket = Annotated[str, _obeys(rules.gcs_bucket)]
ContentType = Annotated[str, _obeys(rules.content_type)]
Region = Annotated[str, _obeys(lambda name: name and rules.region(name))]


def _nothing_required(schema: dict[str, Any]) -> None:
    """Mark no member of CreateJob as required, as in the schema that upstream publishes."""
    schema.pop("required", None)


class InputModel(BaseModel):
    """Base of everything a client sends."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
    )


class OneOfSeveral(InputModel):
    """One of several forms. Some clients send the members of all forms, the others as null."""

    of_any_form: ClassVar[frozenset[str]]
    """The members of all forms. A member of another form may be null; it is then ignored."""

    @model_validator(mode="before")
    @classmethod
    def _drop_what_says_nothing(cls, given: object) -> object:
        if not isinstance(given, dict) or None not in given.values():
            return given
        others = cls.of_any_form - {field.alias for field in cls.model_fields.values()}
        return {
            name: value for name, value in given.items() if value is not None or name not in others
        }


class Secret(OneOfSeveral):
    """What one side signs with."""

    of_any_form = frozenset(
        {"accessKeyId", "secretAccessKey", "sessionToken", "clientEmail", "privateKey"}
    )


class S3Secret(Secret):
    """Key pair of an S3-compatible store."""

    access_key_id: Annotated[str, _obeys(rules.access_key_id)]
    secret_access_key: Annotated[SecretStr, _secretly(rules.secret_access_key)]
    session_token: Annotated[SecretStr, _secretly(rules.session_token)] | None = None
    """Of temporary credentials: an extension"""


class GcsSecret(Secret):
    """Service account of Google Cloud Storage, from its JSON key file."""

    client_email: Annotated[str, _obeys(rules.client_email)]
    private_key: Annotated[SecretStr, _secretly(rules.private_key)]


class SideFields(OneOfSeveral):
    """One side of a job."""

    of_any_form = frozenset({
        "vendor", "bucket", "secret", "endpoint", "region", "jurisdiction", "keys", "pathPrefix",
        OTHER_PATH_PREFIX,
    })  # fmt: skip


class S3Side(SideFields):
    """A bucket of Amazon S3 (without `endpoint`) or of a compatible store."""

    vendor: Literal["s3"]
    bucket: S3Bucket
    secret: S3Secret
    endpoint: str | None = Field(default=None, json_schema_extra={"format": "uri"})
    """Custom S3-compatible endpoint; only https:// is allowed"""
    region: Region | None = None

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _checked(rules.endpoint, value, info.data.get("bucket"))


class GcsSide(SideFields):
    """A bucket of Google Cloud Storage."""

    vendor: Literal["gcs"]
    bucket: GcsBucket
    secret: GcsSecret


class R2Side(SideFields):
    """A bucket of the Cloudflare account that the path names."""

    vendor: Literal["r2"]
    bucket: R2Bucket
    secret: S3Secret
    jurisdiction: Jurisdiction = model.Jurisdiction.DEFAULT


AnySide = S3Side | GcsSide | R2Side


class Selected(SideFields):
    """Which of the source's objects are meant; with both members, both apply."""

    path_prefix: PathPrefix | None = None
    """Plain string prefix of the keys to copy"""
    keys: Keys | None = None
    """Exactly these keys, each 1 to 1,024 bytes long and within pathPrefix"""

    @model_validator(mode="before")
    @classmethod
    def _take_the_other_spelling(cls, given: object) -> object:
        """Take it for `pathPrefix`; if it contradicts `pathPrefix`, leave it to be refused."""
        if not isinstance(given, dict) or OTHER_PATH_PREFIX not in given:
            return given
        other, own = given[OTHER_PATH_PREFIX], given.get("pathPrefix")
        rest = {name: value for name, value in given.items() if name != OTHER_PATH_PREFIX}
        if own is None:
            return rest | {"pathPrefix": other}
        return rest if other is None or other == own else given


class S3Source(Selected, S3Side):
    """Copy from S3 or a compatible store."""


class GcsSource(Selected, GcsSide):
    """Copy from Google Cloud Storage."""


class R2Source(Selected, R2Side):
    """Copy from R2."""


class S3Target(S3Side):
    """Copy to S3 or a compatible store: an extension, upstream copies to R2 alone."""


class GcsTarget(GcsSide):
    """Copy to Google Cloud Storage: an extension, upstream copies to R2 alone."""


class R2Target(R2Side):
    """Copy to R2."""


Source = Annotated[S3Source | GcsSource | R2Source, Field(discriminator="vendor")]
Target = Annotated[S3Target | GcsTarget | R2Target, Field(discriminator="vendor")]


class ContentTypes(InputModel):
    """Filters by content type: `type/subtype` or `type/*`."""

    include: Annotated[list[ContentType], Field(max_length=100, fail_fast=True)] | None = None
    exclude: Annotated[list[ContentType], Field(max_length=100, fail_fast=True)] | None = None


RequiredHeader = Annotated[str, _obeys(rules.required_header)]

RateLimit = Annotated[int | None, Field(ge=1, le=rules.MAX_NUMBER)]


class Limits(InputModel):
    """How fast a job may go; null: no limit."""

    bandwidth_limit: RateLimit = None
    """Bytes per second, each byte copied once"""
    request_rate_limit: RateLimit = None
    """Requests per second, to both sides together"""


class Options(Limits):
    """What upstream cannot do: an extension, and without effect when left out."""

    skip_empty: bool = False
    """Skip zero-byte objects"""
    content_types: ContentTypes | None = None
    validate_media: bool = False
    """Skip media whose first bytes contradict the content type"""
    strip_prefix: bool = False
    """Write the keys without the source's pathPrefix"""
    max_object_size: int | None = Field(default=None, ge=1, le=rules.MAX_NUMBER)
    """Skip larger objects; bytes"""
    server_side_copy: bool = True
    """Let a store that holds both buckets copy by itself, if it can"""
    count_objects: bool = False
    """List the source beside the copy, to know how much there is"""
    require: Annotated[list[RequiredHeader], Field(max_length=20)] | None = Field(
        default=None,
        description="Fail objects that have one of these where the target was found to lose "
        "it: content headers, metadata, or headers for all of them",
    )


class CreateJob(InputModel):
    """A new job. Despite the schema, `source` and `target` are both needed."""

    model_config = ConfigDict(json_schema_extra=_nothing_required)

    overwrite: bool = True
    """Write over objects that the target has already"""
    source: Source
    target: Target
    options: Options | None = None


class NewLimits(Limits):
    """The options that can be changed while a job lasts; one that is left out stays."""


class ChangeJob(InputModel):
    """What a job is to be like from now on: an extension."""

    options: NewLimits


def _kind_of_secret(secret: object) -> str:
    """A stored job knows its vendors, so a request that changes secrets does not name them."""
    is_gcs = isinstance(secret, dict) and any(
        secret.get(field.alias) is not None for field in GcsSecret.model_fields.values()
    )
    return "gcs" if is_gcs else "s3"


AnySecret = Annotated[
    Annotated[S3Secret, Tag("s3")] | Annotated[GcsSecret, Tag("gcs")],
    Discriminator(_kind_of_secret),
]


class NewSecret(InputModel):
    """Credentials for one side of a job from now on."""

    secret: AnySecret


class NewSecrets(InputModel):
    """New credentials: an extension. A side that is left out keeps what it has."""

    source: NewSecret | None = None
    target: NewSecret | None = None


class View(BaseModel):
    """Base of everything a client is shown; built by attribute name, sent in camelCase."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class SelectedView(View):
    """Which of the source's objects a job was asked to copy."""

    path_prefix: str | None
    keys: list[str] | None = Field(
        description="Empty in a list of jobs: reading the job alone shows its keys. They are not "
        "shown if they are more than 10,000, as those of a retry may be, nor when a retry has "
        "ended. `keyCount` always tells how many there are"
    )


class S3SideView(View):
    """An S3 bucket, without region and secret."""

    vendor: Literal["s3"] = "s3"
    bucket: str
    endpoint: str | None = Field(json_schema_extra={"format": "uri"})


class GcsSideView(View):
    """A GCS bucket, without secret."""

    vendor: Literal["gcs"] = "gcs"
    bucket: str


class R2SideView(View):
    """An R2 bucket, without secret."""

    vendor: Literal["r2"] = "r2"
    bucket: str
    jurisdiction: model.Jurisdiction


class S3SourceView(SelectedView, S3SideView):
    """Where a job copies from: S3."""


class GcsSourceView(SelectedView, GcsSideView):
    """Where a job copies from: GCS."""


class R2SourceView(SelectedView, R2SideView):
    """Where a job copies from: R2."""


class S3TargetView(S3SideView):
    """Where a job copies to: S3 (extension)."""


class GcsTargetView(GcsSideView):
    """Where a job copies to: GCS (extension)."""


class R2TargetView(R2SideView):
    """Where a job copies to: R2."""


SourceView = S3SourceView | GcsSourceView | R2SourceView
TargetView = S3TargetView | GcsTargetView | R2TargetView


class ContentTypesView(View):
    """The content-type filters in force."""

    include: list[str]
    exclude: list[str]


class OptionsView(View):
    """The `options` in force."""

    skip_empty: bool
    content_types: ContentTypesView
    validate_media: bool
    strip_prefix: bool
    max_object_size: int | None
    bandwidth_limit: int | None
    request_rate_limit: int | None
    server_side_copy: bool
    count_objects: bool
    require: list[str]


class CapabilitiesView(View):
    """What a store was found to do, before the job or while it copies; null: not known."""

    list_version: int | None
    """Of ListObjects"""
    key_order: str | None
    """In which it lists: bytes, folders, own or none"""
    clock_ahead_seconds: int | None
    """Of the server's clock; a second tells nothing"""
    conditional_reads: bool | None
    """False: it refused a read for an If-Match that held"""


class SourceCapabilitiesView(CapabilitiesView):
    """The same of a source, and what its ETags tell."""

    etags_are_md5: bool | None
    """False: those of objects written in one request are not"""
    part_etags_are_md5: bool | None
    """False: those of objects in parts are not made of MD5s"""


class TargetCapabilitiesView(CapabilitiesView):
    """The same of a target, and what keeps writes safe."""

    checksum: str | None
    """What goes with every write"""
    checksum_verified: bool | None
    """False: bytes that change on the way go unnoticed"""
    trailing_checksum_verified: bool | None
    """Whether it is when it comes behind the bytes of a part"""
    md5_verified: bool | None
    """Whether bytes with another Content-MD5 are refused"""
    md5_required: bool | None
    """True: it refused a write that had no Content-MD5"""
    conditional_writes: bool | None
    """Whether If-None-Match is obeyed; asked if overwrite=false"""
    conditional_completions: bool | None
    """Whether it is when an upload in parts is completed"""
    unkept_keys: list[str] | None
    """Shapes of keys that it rewrites or refuses; such objects fail"""
    unkept_headers: list[str] | None
    """What objects lose there; see options.require"""


class JobCapabilitiesView(View):
    """What both stores were found to do."""

    source: SourceCapabilitiesView
    target: TargetCapabilitiesView


class JobView(View):
    """A job. `options`, `retryOf`, `createdBy`, `capabilities` and `keyCount` are extensions."""

    id: str
    created_at: str
    """UTC, as in 2026-03-19T15:46:20.000Z"""
    finished_at: str | None
    overwrite: bool
    source: SourceView = Field(discriminator="vendor")
    status: model.JobStatus
    target: TargetView = Field(discriminator="vendor")
    options: OptionsView
    retry_of: str | None
    """The job whose failed objects this one copies"""
    created_by: str | None
    """The name of the token with which it was made; null: not known"""
    capabilities: JobCapabilitiesView
    key_count: int | None
    """How many keys it was given, also if `source.keys` does not show them; null: it has no list"""


class JobIdView(View):
    """What create and retryFailed answer."""

    id: str


class ThrottledShareView(View):
    """Which share of the recent answers of each side asked to slow down, 0 to 1."""

    source: float
    target: float


class JobProgressView(View):
    """A job's counters, and as extensions `finishedAt` and all that follows `failedObjects`."""

    id: str
    created_at: str
    finished_at: str | None
    status: model.JobStatus
    objects: int
    """Settled so far: transferred + skipped + failed; in the end, all"""
    transferred_objects: int
    skipped_objects: int
    failed_objects: int
    transferred_bytes: int
    objects_per_second: float
    """Of about the last half minute"""
    bytes_per_second: float
    """Of about the last half minute"""
    total_objects: int | None
    """Null: not known; options.countObjects asks for it"""
    total_bytes: int | None
    estimated_seconds_left: float | None
    """Null: the total is not known, or nothing moves"""
    throttled_share: ThrottledShareView
    active_workers: int | None
    """Processes that work on the job; null: not known"""
    waiting_for: list[str]
    """What holds requests up now, where the server that is asked knows it"""


class JobLogView(View):
    """One log entry."""

    created_at: str
    job: str
    log_type: model.LogType
    message: str | None
    object_key: str | None


class ConnectivityStatus(StrEnum):
    """Whether one side can be used with what was given."""

    SUCCESS = "success"
    ERROR = "error"


class ReasonView(View):
    """One thing found out about a side."""

    pointer: str
    """JSON pointer into the body: which member to change"""
    message: str
    blocks: bool
    """The side cannot be used; false: it can, and this is worth knowing"""


class ConnectivityView(View):
    """The outcome of a precheck. `reasons` is an extension; `messages` holds the same texts."""

    connectivity_status: ConnectivityStatus
    reasons: list[ReasonView]
    """Why the status is error, or what is worth knowing"""


class ErrorSource(TypedDict):
    """Which part of the request an error is about."""

    pointer: str


class ErrorItem(TypedDict):
    """One error. A dictionary, because `source` is left out when no field is meant, never null."""

    code: Annotated[int, Field(ge=1000)]
    message: str
    source: NotRequired[ErrorSource]


class Success(View, Generic[Payload]):
    """The envelope of a request that succeeded."""

    success: Literal[True] = True
    errors: list[ErrorItem] = Field(default_factory=list)
    messages: list[str] = Field(default_factory=list)
    result: Payload


class Failure(View):
    """The envelope of a request that failed."""

    success: Literal[False] = False
    errors: list[ErrorItem]
    messages: list[str]
    result: None = None
