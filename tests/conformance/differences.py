"""Where a store under test is known not to do what S3 does: which test, and why.

Each entry must fail: one that passes again is an error, so that the table stays true.
"""

from __future__ import annotations

SEAWEEDFS_KEYS = {
    "empty-segment": "stored as a/b",
    "leading-slash": "stored as lead",
    "marker": "the bytes of an object whose key ends with a slash are dropped",
    "parent-segment": "refused with 400 InvalidRequest",
    "own-segment": "refused with 400 InvalidRequest",
    "parent": "refused with 400 InvalidRequest",
    "own": "refused with 400 InvalidRequest",
    "backslash": "stored as b/c",
    "longest": "refused with 400 KeyTooLongError: a segment takes at most 255 bytes",
}

_NO_BUCKET_NO_KEYS = "a store in memory has neither credentials nor a bucket that could be absent"
_NO_CONDITION = "moto knows no condition on the source of a copy"
_WRONG_CREDENTIALS = "test_wrong_credentials_are_told_from_missing_rights"

DIFFERENCES: dict[str, str] = {
    **{
        f"test_a_key_is_kept[seaweedfs-{name}]": f"SeaweedFS keeps files in folders: {reason}"
        for name, reason in SEAWEEDFS_KEYS.items()
    },
    "test_a_key_is_kept[moto-newline]": "moto answers 404 to a key with a line break",
    **{
        f"test_any_key_is_copied_from_and_to[seaweedfs-{name}]": f"as it is kept: {reason}"
        for name, reason in SEAWEEDFS_KEYS.items()
    },
    "test_any_key_is_copied_from_and_to[moto-newline]": "moto answers 404 to such a key",
    "test_a_copy_insists_on_a_version[moto]": f"{_NO_CONDITION}; its ETag shows it, as it must",
    "test_a_part_is_copied_of_one_version_only[moto]": _NO_CONDITION,
    **{
        f"{test}[{google}-{name}]": "Google refuses to name an object so"
        for google in ("gcs", "fakegcs", "gcsemulator")
        for name in ("newline", "parent", "own")
        for test in ("test_a_key_is_kept", "test_any_key_is_copied_from_and_to")
    },
    "test_a_key_too_long_is_refused[gcs]": "Google refuses it as `invalid`",
    "test_a_key_too_long_is_refused[fakegcs]": "Google refuses it as `invalid`",
    "test_a_key_too_long_is_refused[gcsemulator]": "Google refuses it as `invalid`",
    **{
        f"{test}[gcsemulator-parent-segment]": "gcp-storage-emulator fails over a segment `..`"
        for test in ("test_a_key_is_kept", "test_any_key_is_copied_from_and_to")
    },
    "test_a_marker_stands_beside_an_object[gcsemulator]": (
        "gcp-storage-emulator keeps the bytes of `dir/` and `dir` in one place; the checksum tells"
    ),
    "test_damaged_bytes_are_refused[fakegcs]": (
        "fake-gcs-server compares no checksum, only tells its own: the damage is seen, and kept"
    ),
    "test_a_marker_stands_beside_an_object[seaweedfs]": (
        "a file and a folder of one name cannot both be: 409 ExistingObjectIsFile"
    ),
    "test_metadata_of_western_letters[ministack]": (
        "ministack sends values that fit into ISO 8859-1 in that encoding, not in their own bytes"
    ),
    "test_a_key_is_kept[r2_server-nfd]": "R2 keeps keys in Unicode's form NFC",
    "test_metadata_may_hold_any_bytes[r2_server]": "R2 hands out text beyond ASCII as words",
    "test_metadata_of_western_letters[r2_server]": "R2 hands out text beyond ASCII as words",
    "test_any_key_is_copied_from_and_to[r2_server-nfd]": "R2 keeps keys in Unicode's form NFC",
    "test_a_bucket_that_keeps_versions_says_so[r2_server]": "R2 has no versions",
    "test_archived_objects_say_so[r2_server]": "R2 has no archive and refuses its classes",
    "test_archived_objects_say_so[seaweedfs]": "SeaweedFS has no archive and sends the bytes",
    "test_a_restored_object_can_be_read_and_says_so[r2_server]": "R2 has no archive",
    "test_a_restored_object_can_be_read_and_says_so[seaweedfs]": "SeaweedFS has no archive",
    "test_an_aborted_upload_leaves_nothing[moto]": "moto answers 500 to a part of no upload",
    "test_uploads_under_way_are_listed[moto]": "moto says of every upload that 2010 saw it begin",
    "test_a_small_part_must_be_the_last[ministack]": "ministack takes small parts anywhere",
    "test_damaged_bytes_are_refused[moto]": "moto compares no checksum",
    "test_damaged_parts_are_refused[moto]": "moto compares no checksum",
    f"{_WRONG_CREDENTIALS}[secret-moto]": "moto checks no signature",
    f"{_WRONG_CREDENTIALS}[key-id-moto]": "moto checks no signature",
    f"{_WRONG_CREDENTIALS}[secret-memory]": _NO_BUCKET_NO_KEYS,
    f"{_WRONG_CREDENTIALS}[key-id-memory]": _NO_BUCKET_NO_KEYS,
    "test_an_absent_bucket_is_told_from_an_absent_key[memory]": _NO_BUCKET_NO_KEYS,
}
