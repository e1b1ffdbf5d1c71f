"""Writes binary maps as PNGs strip by strip, with texts on how they were made, and reads these texts.

No required library writes a PNG in pieces and reports a full disk: GDAL's driver omits the end of the file without an
error. The format: https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rasters.gdal_output import event_file
from rasters.raster import Raster, read_strips

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST_TEXT = 1 << 16  # bytes of a text that is read back


def write_preview(path: Path, binary: Raster, texts: Mapping[str, str] | None = None) -> None:
    """Write a binary map (bool) as an 8-bit grey PNG of 0 and 255 that appears whole or not at all.

    `texts`: UTF-8 texts by keyword (Latin-1, at most 79 characters), stored in iTXt chunks before the pixels. Raises
    EventError if the file cannot be written.
    """
    height, width = binary.shape
    compressor = zlib.compressobj(strategy=zlib.Z_RLE)  # for runs: faster than the default, and smaller
    with event_file(path) as part, open(part, "wb") as file:
        file.write(SIGNATURE)
        file.write(_chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)))  # 8 bits, grey
        for keyword, text in (texts or {}).items():
            file.write(_chunk(b"iTXt", keyword.encode("latin-1") + bytes(5) + text.encode()))  # not compressed
        for pixels in read_strips(binary):
            rows = np.zeros((len(pixels), width + 1), np.uint8)  # each row begins with its filter, 0: none
            rows[:, 1:][pixels] = 255
            file.write(_chunk(b"IDAT", compressor.compress(rows.data)))
        file.write(_chunk(b"IDAT", compressor.flush()))
        file.write(_chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def read_preview_text(path: Path) -> dict[str, str]:
    """Return the texts that `write_preview` stored; empty if there are none, or the file is not such a PNG."""
    texts: dict[str, str] = {}
    try:
        with open(path, "rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                return {}
            while True:
                length, kind = struct.unpack(">I4s", file.read(8))
                if kind not in (b"IHDR", b"iTXt") or length > LONGEST_TEXT:
                    return texts
                content, checksum = file.read(length), file.read(4)
                if struct.pack(">I", zlib.crc32(kind + content)) != checksum:
                    return {}
                if kind == b"iTXt":
                    keyword, _, rest = content.partition(b"\0")
                    texts[keyword.decode("latin-1")] = rest[4:].decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return {}
