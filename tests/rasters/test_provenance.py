import hashlib
from pathlib import Path

from rasters.provenance import END_BYTES, file_identities


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
