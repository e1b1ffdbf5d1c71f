import hashlib
from pathlib import Path

import pytest

from cli.provenance import END_BYTES, file_identities


def test_file_identity_is_size_and_hash_of_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = bytearray(3 * END_BYTES)
    path.write_bytes(content)
    (identity,) = file_identities([path]).values()
    assert identity == {"bytes": 3 * END_BYTES, "sha256_of_ends": hashlib.sha256(bytes(2 * END_BYTES)).hexdigest()}
    for position in (0, END_BYTES - 1, 2 * END_BYTES, 3 * END_BYTES - 1):
        changed = content.copy()
        changed[position] = 1
        path.write_bytes(changed)
        assert file_identities([path])["a.tif"] != identity


def test_identity_of_a_small_file(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*")
    identity = file_identities([tmp_path / "a.tif"])["a.tif"]
    assert identity == {"bytes": 3, "sha256_of_ends": hashlib.sha256(b"II*II*").hexdigest()}


SIDE_FILES = {
    "a.tif.msk": b"mask",
    "a.tif.ovr": b"overviews",
    "a.tfw": b"0.5\n0\n0\n-0.5\n0\n0\n",
    "a.TFW": b"0.5\n0\n0\n-0.5\n0\n0\n",
    "a.tif.aux.xml": b"<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>",
}


@pytest.mark.parametrize("name", SIDE_FILES)
def test_side_files_are_part_of_an_images_identity(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*")
    (tmp_path / "ab.tif.msk").write_bytes(b"of another image")
    seen = [file_identities([path])]
    for content in (SIDE_FILES[name], SIDE_FILES[name].replace(b"0.5", b"0.6").replace(b"EPSG", b"epsg") + b" "):
        (tmp_path / name).write_bytes(content)
        seen.append(file_identities([path]))
    assert "side_files" not in seen[0]["a.tif"]
    assert list(seen[1]["a.tif"]["side_files"]) == [name]
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_statistics_that_a_gis_writes_do_not_count(tmp_path: Path) -> None:
    path, side = tmp_path / "a.tif", tmp_path / "a.tif.aux.xml"
    path.write_bytes(b"II*")
    without = file_identities([path])
    statistics = (
        '<PAMRasterBand band="1">\n  <Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>\n'
        '  <Metadata>\n    <MDI key="STATISTICS_MAXIMUM">255</MDI>\n  </Metadata>\n</PAMRasterBand>'
    )
    side.write_text(f"<PAMDataset>\n{statistics}\n</PAMDataset>")
    assert file_identities([path]) == without
    side.write_text("<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>")
    placed = file_identities([path])
    side.write_text(f"<PAMDataset><SRS>EPSG:32633</SRS>{statistics}</PAMDataset>")
    assert file_identities([path]) == placed != without
