"""Magic bytes of common image, audio and video types.

Only a contradiction counts: a type that is not listed here is never doubted. Signatures are those
of the formats' own specifications, most of them collected in the WHATWG MIME Sniffing standard
(https://mimesniff.spec.whatwg.org/), sections 6.1 and 6.2.
"""

from __future__ import annotations

import re

_ISO_MEDIA = re.compile(rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", re.DOTALL)
_EBML = re.compile(rb"\x1aE\xdf\xa3")
_OGG = re.compile(rb"OggS")
_MPEG_AUDIO = re.compile(rb"ID3|\xff[\xe0-\xff]")


def _riff(form: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"RIFF...." + form, re.DOTALL)


_SIGNATURES: dict[str, re.Pattern[bytes]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": _riff(rb"WEBP"),
    "image/bmp": re.compile(rb"BM"),
    "image/tiff": re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    "image/avif": _ISO_MEDIA,
    "image/heic": _ISO_MEDIA,
    "audio/mpeg": _MPEG_AUDIO,
    "audio/wav": _riff(rb"WAVE"),
    "audio/x-wav": _riff(rb"WAVE"),
    "audio/flac": re.compile(rb"fLaC|ID3"),
    "audio/ogg": _OGG,
    "audio/aiff": re.compile(rb"FORM....AIF", re.DOTALL),
    "audio/mp4": _ISO_MEDIA,
    "video/mp4": _ISO_MEDIA,
    "video/quicktime": _ISO_MEDIA,
    "video/webm": _EBML,
    "video/x-matroska": _EBML,
    "video/ogg": _OGG,
    "video/x-msvideo": _riff(rb"AVI "),
}


def contradicts(content_type: str, first_bytes: bytes) -> bool:
    """Whether the bytes cannot be of `content_type` (lower case, without parameters)."""
    signature = _SIGNATURES.get(content_type)
    return signature is not None and signature.match(first_bytes) is None
