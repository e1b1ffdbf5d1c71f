"""Catalogs and their servers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.catalogs.made import PIXEL, write_static_catalog
from tests.catalogs.servers import FileServer, file_server
from tests.catalogs.small_catalog import DATES, MANY_DATES, SIDE, image_item, write_images


@pytest.fixture(scope="module")
def first_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four images and their catalog."""
    folder = tmp_path_factory.mktemp("catalog")
    write_images(folder, SIDE)
    write_static_catalog(folder, [image_item(day) for day in DATES])
    return folder


@pytest.fixture
def root(first_catalog: Path, tmp_path: Path) -> Path:
    """A copy of `first_catalog` that a test may change."""
    return Path(shutil.copytree(first_catalog, tmp_path / "catalog"))


@pytest.fixture
def server(root: Path) -> Iterator[FileServer]:
    with file_server(root) as server:
        yield server


@pytest.fixture(scope="module")
def large_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `first_catalog`, but the images have overviews on which they are measured."""
    folder, side = tmp_path_factory.mktemp("large"), 4 * SIDE
    write_images(folder, side, MANY_DATES)
    extent: dict[str, Any] = {"width": side * PIXEL, "height": side * PIXEL}
    write_static_catalog(folder, [image_item(day, **extent) for day in MANY_DATES])
    return folder


@pytest.fixture
def large_server(large_catalog: Path, tmp_path: Path) -> Iterator[FileServer]:
    with file_server(Path(shutil.copytree(large_catalog, tmp_path / "catalog"))) as server:
        yield server
