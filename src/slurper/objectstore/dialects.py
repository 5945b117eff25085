"""Provider differences as data: limits, quirks and checksums. No logic branches on a host name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.key_shapes import KeyShape
from slurper.settings import GIB, KIB, MIB, TIB


class KeyOrder(Enum):
    """The order in which a store lists its keys; listing after a key follows the same order."""

    BYTES = "bytes"
    """UTF-8 byte order. S3 documents it, and nearly every store uses it."""
    FOLDERS = "folders"
    """Folder by folder, as if `/` came before every other character. Stores that keep objects in a
    tree of directories, such as SeaweedFS, list in this order."""
    OWN = "own"
    """An order that only the store knows, such as that of encrypted keys. Two keys cannot be
    compared. But a listing can start after a key and go on from there (decision 0022)."""
    NONE = "none"
    """No order: a listing cannot start after a key. It can only follow the tokens of its pages,
    from the first page to the last."""

    def rank(self, key: str) -> str:
        """Return a string for a key. Comparing such strings by code points gives this order.

        For `OWN` and `NONE` the strings only tell whether two keys are the same.
        """
        return key.replace("/", "\0") if self is KeyOrder.FOLDERS else key


class PartCopy(Enum):
    """How a store supports UploadPartCopy, which copies a range of an object into a part."""

    NONE = "none"
    UNCONDITIONAL = "unconditional"
    """It copies the version that is there at that moment."""
    CONDITIONAL = "conditional"
    """With x-amz-copy-source-if-match it copies the given version, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one provider's S3 interface allows and expects. Sizes are bytes.

    An open store changes its own dialect when answers show that a value is wrong. Tasks report the
    change (`factory.found_since`). The job keeps it, and its next tasks begin with it.
    """

    name: str
    assumed: bool = False
    """This dialect is for servers of unknown make. Some members are then found out before a job
    begins, and kept with the job: `list_version`, `checksum`, `verifies_md5`, `conditional_put`,
    `conditional_completion`, `unkept_keys`."""
    may_encrypt_keys: bool = False
    """Some of its buckets encrypt their keys, and are listed in the order of the encrypted keys."""
    own_order: bool = False
    """The store lists its keys in an order of its own (`KeyOrder.OWN`). In every dialect this is
    found out when it happens, and kept with the job."""
    no_order: bool = False
    """A listing cannot even start after a key in that order (`KeyOrder.NONE`). This is found out
    and kept in the same way."""
    obeys_if_match: bool = True
    """A read under If-Match succeeds while the object has that ETag. If this is false, If-Match is
    not sent, and the ETags of the answers are compared instead."""
    etags_are_md5s: bool = True
    """The ETag of an object that was written in one request is its MD5, unless an answer shows that
    it is not."""
    etags_of_parts_are_md5s: bool = True
    """The ETag of an object in parts is made of their MD5s."""
    max_object_bytes: int = 5 * TIB
    max_put_bytes: int = 5 * GIB
    """Largest single PUT and largest part."""
    min_part_bytes: int = 5 * MIB
    max_parts: int = 10_000
    max_key_bytes: int = 1024
    max_metadata_bytes: int | None = None
    """Limit for the names and values of an object's user metadata together. None: no limit is
    checked before the write, and the store itself may refuse it."""
    decodes_metadata: bool = False
    """Takes metadata in ASCII only, and reads RFC 2047 words in it as the text they stand for."""
    normalises_keys: bool = False
    """Stores a key in Unicode's form NFC, so that keys that only look the same become one."""
    unkept_keys: tuple[KeyShape, ...] = ()
    """The store rewrites or refuses keys of these shapes. An object with such a key is not sent."""
    refused_headers: frozenset[str] = frozenset()
    """Headers that the job requires, but that the store was found to lose. An object with such a
    header is not sent. The names are those of `storable.HEADERS`."""
    upload_days: float | None = None
    """The store drops multipart uploads that are older than this."""
    hosts: tuple[str, ...] = ()
    """Domains of the provider: an endpoint at or below one of them speaks this dialect."""
    default_region: str = "us-east-1"
    """The region to sign with when neither the user nor the host names one."""
    region_in_host: str = ""
    """Pattern for host names of the provider. Its group is the region."""
    regional_host: str = ""
    """Host of a region, with `{region}`; empty where one host serves all regions of an account."""
    global_host: str = ""
    """A host that serves one region and redirects to `regional_host` for the others."""
    virtual_hosted: bool = False
    """Address as `bucket.host` where the bucket name allows it, else `host/bucket`."""
    encoding_type_url: bool = True
    """ListObjectsV2 understands encoding-type=url, the only form that carries every key."""
    accept_encoding: str = "identity"
    """What requests accept, so that the bytes of objects come as they are stored. Without it, some
    stores and proxies compress."""
    list_version: int = 2
    """1 for a provider that does not know ListObjectsV2. For others this is found out when it
    happens."""
    requester_pays: bool = False
    """The store knows x-amz-request-payer. Stores that do not know it refuse it."""
    checksum: Algorithm | None = Algorithm.CRC32C
    """The checksum that goes with every PUT and part, for the store to verify. None: it verifies
    none."""
    trailing_checksum: bool = False
    """The checksum of a part may come behind its bytes, and is verified. This is found out for
    every store before a job begins, and kept with the job."""
    verifies_md5: bool | None = None
    """True: the store verifies Content-MD5. If the source tells an object's MD5, the PUT carries no
    other checksum. False: the store does not verify it. None: not known. The PUT carries the MD5
    and the checksum."""
    wants_md5: bool = False
    """Content-MD5 goes with every PUT and part, beside the checksum. A bucket with a retention rule
    may refuse a write without it."""
    full_object_checksum: bool = False
    """Multipart uploads take CRC64NVME of the whole object (checksum type FULL_OBJECT)."""
    verifies_upload_size: bool = False
    """CompleteMultipartUpload takes the object's size in x-amz-mp-object-size and checks it."""
    conditional_put: bool = True
    """If-None-Match: * on PutObject."""
    conditional_completion: bool = True
    """If-None-Match: * on CompleteMultipartUpload."""
    server_side_copy: bool = True
    """The store knows CopyObject, or a request that does the same. If it does not, the first such
    request shows that."""
    max_copy_bytes: int = 5 * GIB
    """Largest object that is copied in this way as a whole."""
    conditional_copy: bool = False
    """If-None-Match: * on CopyObject."""
    part_copy: PartCopy = PartCopy.CONDITIONAL
    """Used for larger objects. If the store does not know it, the first such request shows that."""
    global_bucket_names: bool = False
    """At one endpoint, a bucket's name means the same bucket for all credentials."""
    unreadable_storage_classes: frozenset[str] = field(default_factory=frozenset)
    """Classes, and tiers of classes, whose objects must be restored before a GET succeeds."""
    lists_restores: bool = False
    """On request, a listing shows which archived objects have been restored."""


ARCHIVE_TIERS = frozenset({"ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
"""Tiers of INTELLIGENT_TIERING. HEAD names the tier. A listing names only the class."""

_ARCHIVE = frozenset({"GLACIER", "DEEP_ARCHIVE"})

AWS = Dialect(
    name="aws",
    hosts=("amazonaws.com",),
    region_in_host=r"(?:^|\.)s3(?:-fips)?[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.",
    regional_host="s3.{region}.amazonaws.com",
    global_host="s3.amazonaws.com",
    virtual_hosted=True,
    max_metadata_bytes=2 * KIB,
    decodes_metadata=True,
    requester_pays=True,
    checksum=Algorithm.CRC64NVME,
    verifies_md5=True,
    full_object_checksum=True,
    verifies_upload_size=True,
    conditional_copy=True,
    global_bucket_names=True,
    unreadable_storage_classes=_ARCHIVE | ARCHIVE_TIERS,
    lists_restores=True,
)

AWS_CHINA = replace(
    AWS,
    name="aws-cn",
    hosts=("amazonaws.com.cn",),
    default_region="cn-north-1",
    regional_host="s3.{region}.amazonaws.com.cn",
    global_host="",
)

R2 = Dialect(
    name="r2",
    hosts=("r2.cloudflarestorage.com",),
    default_region="auto",
    max_object_bytes=5 * TIB - 5 * GIB,
    max_put_bytes=5 * GIB - 5 * MIB,
    max_metadata_bytes=8 * KIB,
    decodes_metadata=True,
    normalises_keys=True,
    upload_days=7,
    checksum=Algorithm.CRC64NVME,
    verifies_md5=True,
    full_object_checksum=True,
    # https://developers.cloudflare.com/r2/api/s3/api/ lists the conditions as not implemented.
    part_copy=PartCopy.UNCONDITIONAL,
    global_bucket_names=True,  # the host names the account
)

GENERIC = Dialect(
    name="generic",
    assumed=True,
    # CopyObject answers when the copy is done. AWS keeps the connection open until then. Few of
    # these servers do.
    max_copy_bytes=1 * GIB,
    unreadable_storage_classes=_ARCHIVE | ARCHIVE_TIERS,
)

# Servers that people run themselves have no known host names. They get GENERIC, which they
# understand. SeaweedFS shows its key order in its answers, see `key_order`.

# For stores that refuse the newer checksum and condition headers, or may not know them. They get
# MD5, which all of them verify.
_CAUTIOUS = Dialect(
    name="cautious",
    checksum=Algorithm.MD5,
    verifies_md5=True,
    conditional_put=False,
    conditional_completion=False,
)

ALIBABA = replace(
    _CAUTIOUS,
    name="alibaba",
    hosts=("aliyuncs.com",),
    default_region="oss-cn-hangzhou",
    region_in_host=r"(?:^|\.)(oss-[a-z]+-[a-z0-9-]+?)(?:-internal)?\.aliyuncs",
    virtual_hosted=True,  # it refuses bucket names in paths
    unreadable_storage_classes=_ARCHIVE,
)
BACKBLAZE = replace(
    _CAUTIOUS,
    name="b2",
    hosts=("backblazeb2.com",),
    region_in_host=r"(?:^|\.)s3\.([a-z]{2}-[a-z]+-\d{3})\.",
)
DIGITALOCEAN = replace(
    _CAUTIOUS, name="digitalocean", hosts=("digitaloceanspaces.com",), encoding_type_url=False
)
GOOGLE = replace(
    _CAUTIOUS,
    name="gcs-interoperable",
    hosts=("storage.googleapis.com",),
    default_region="auto",
    max_metadata_bytes=8 * KIB,
    # Without gzip here, it unpacks what is stored with gzip; `identity` does not prevent that.
    # https://cloud.google.com/storage/docs/transcoding
    accept_encoding="gzip",
)
SCALEWAY = replace(
    _CAUTIOUS,
    name="scaleway",
    hosts=("scw.cloud",),
    default_region="fr-par",
    region_in_host=r"(?:^|\.)s3\.([a-z]{2}-[a-z]{3})\.",
    max_parts=1_000,
    unreadable_storage_classes=frozenset({"GLACIER"}),
)
STORJ = replace(
    _CAUTIOUS,
    name="storj",
    hosts=("storjshare.io", "storj.io"),
    min_part_bytes=64 * MIB,
    may_encrypt_keys=True,
)
TENCENT = replace(
    _CAUTIOUS,
    name="tencent",
    hosts=("myqcloud.com",),
    default_region="ap-guangzhou",
    region_in_host=r"(?:^|\.)cos\.([a-z]+-[a-z0-9-]+)\.",
    virtual_hosted=True,  # buckets made since 2024 are refused in paths
    list_version=1,
    unreadable_storage_classes=frozenset({"ARCHIVE", "DEEP_ARCHIVE"}),
)
WASABI = replace(
    _CAUTIOUS,
    name="wasabi",
    hosts=("wasabisys.com",),
    region_in_host=r"(?:^|\.)s3\.([a-z]{2}-[a-z]+-\d)\.",
)
# Google's own interface. It is chosen by vendor and not by host.
GCS = Dialect(
    name="gcs",
    max_put_bytes=5 * GIB,
    default_region="auto",
    checksum=Algorithm.CRC32C,
    max_copy_bytes=5 * TIB,
    conditional_copy=True,
    part_copy=PartCopy.NONE,
    global_bucket_names=True,
)

BY_PROVIDER = (
    AWS,
    AWS_CHINA,
    R2,
    ALIBABA,
    BACKBLAZE,
    DIGITALOCEAN,
    GOOGLE,
    SCALEWAY,
    STORJ,
    TENCENT,
    WASABI,
)
"""The dialects that are chosen by an endpoint's host."""


def of_host(host: str) -> Dialect:
    """The dialect spoken at a host name without port; GENERIC when the provider is not known."""
    name = host.lower().rstrip(".")
    for dialect in BY_PROVIDER:
        if any(name == domain or name.endswith(f".{domain}") for domain in dialect.hosts):
            return dialect
    return GENERIC


def key_order(server: str) -> KeyOrder:
    """The order in which a program lists keys, by the Server header of its answers.

    An endpoint's host does not tell which program runs there, and a listing may not show its order.
    """
    return KeyOrder.FOLDERS if server.startswith("SeaweedFS") else KeyOrder.BYTES
