from pathlib import Path

import cv2
import numpy as np

from rasters.png import read_preview_text, write_preview
from rasters.raster import MemoryRaster

BINARY = np.random.default_rng(0).random((30, 20)) > 0.5
TEXTS = {"ANOMALYCD_SETTINGS": '{"threshold": 0.08}', "Comment": "Überschwemmung, 洪水"}


def test_texts_are_read_back_and_do_not_change_pixels(tmp_path: Path) -> None:
    plain, with_texts = tmp_path / "plain.png", tmp_path / "texts.png"
    write_preview(plain, MemoryRaster(BINARY))
    write_preview(with_texts, MemoryRaster(BINARY), TEXTS)
    assert read_preview_text(plain) == {}
    assert read_preview_text(with_texts) == TEXTS
    for path in (plain, with_texts):
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), BINARY * np.uint8(255))


def test_a_missing_truncated_or_changed_preview_has_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    assert read_preview_text(path) == {}
    write_preview(path, MemoryRaster(BINARY), TEXTS)
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:4],
        content[:40],
        content[:60],
        b"II*\0" + content,
        content.replace(b"0.08", b"0.80"),
    ):
        path.write_bytes(damaged)
        assert read_preview_text(path) == {}
    path.write_bytes(content)
    assert read_preview_text(path) == TEXTS
    path.unlink()
    path.mkdir()
    assert read_preview_text(path) == {}
