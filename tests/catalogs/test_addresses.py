import pytest

from catalogs.addresses import gdal_path, is_web, resolve
from utils import EventError, hide_secrets

WEB_ITEM = "https://host.org/a/b/item.json"
LOCAL_ITEM = "/data/a/b/item.json"


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("image.tif", "https://host.org/a/b/image.tif"),
        ("./image.tif", "https://host.org/a/b/image.tif"),
        ("../image.tif?sig=x", "https://host.org/a/image.tif?sig=x"),
        ("../../../../../image.tif", "https://host.org/image.tif"),
        ("/image.tif", "https://host.org/image.tif"),
        ("//other.org/image.tif", "https://other.org/image.tif"),
        ("http://other.org/image.tif", "http://other.org/image.tif"),
        ("HTTPS://other.org/image.tif", "HTTPS://other.org/image.tif"),
        ("one image.tif", "https://host.org/a/b/one%20image.tif"),
        # Local files, as they look to a program that opens paths: they are addresses on the catalog's own host.
        ("/etc/passwd", "https://host.org/etc/passwd"),
        ("/vsizip/a.zip", "https://host.org/vsizip/a.zip"),
        ("/vsicurl/http://other.org/a.tif", "https://host.org/vsicurl/http://other.org/a.tif"),
    ],
)
def test_on_the_network_hrefs_become_web_addresses(href: str, address: str) -> None:
    found = resolve(WEB_ITEM, href)
    assert found.lower() == address.lower()
    assert is_web(found)
    assert gdal_path(found, None) == f"/vsicurl/{found}"


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file:image.tif",
        "s3://bucket/image.tif",
        "ftp://host.org/image.tif",
        "gs://bucket/image.tif",
        "data:image/tiff;base64,AAAA",
        "javascript:0",
        "http:///image.tif",
    ],
)
def test_on_the_network_other_schemes_are_refused(href: str) -> None:
    with pytest.raises(EventError, match="only http and https"):
        resolve(WEB_ITEM, href)


@pytest.mark.parametrize("base", [WEB_ITEM, LOCAL_ITEM])
@pytest.mark.parametrize("href", ["a\nb.tif", "a\0b.tif", "a\tb.tif", "\x1b[31m.tif"])
def test_control_characters_are_refused_and_not_printed(base: str, href: str) -> None:
    with pytest.raises(EventError, match="control characters") as caught:
        resolve(base, href)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("base", [WEB_ITEM, LOCAL_ITEM])
@pytest.mark.parametrize("href", ["http://[broken/image.tif", "//[broken/image.tif", "http://[::zz]/image.tif"])
def test_malformed_address_is_a_named_error(base: str, href: str) -> None:
    with pytest.raises(EventError, match=r"broken|zz"):
        resolve(base, href)


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("image.tif", "/data/a/b/image.tif"),
        ("../image.tif", "/data/a/image.tif"),
        ("/other/image.tif", "/other/image.tif"),
        ("file:///other/one%20image.tif", "/other/one image.tif"),
        ("http://host.org/image.tif", "http://host.org/image.tif"),
    ],
)
def test_local_catalogs_name_files_and_web_addresses(href: str, path: str) -> None:
    assert resolve(LOCAL_ITEM, href) == path
    assert is_web(path) or gdal_path(path, None) == path


@pytest.mark.parametrize(
    "href",
    [
        "/vsizip/a.zip/image.tif",
        "/vsicurl/http://host.org/image.tif",
        "/vsimem/image.tif",
        "/./vsizip/a.zip/image.tif",
        "../../../vsizip/a.zip/image.tif",
        "file:///vsizip/a.zip/image.tif",
        "file:///%76sizip/a.zip/image.tif",
        "s3://bucket/image.tif",
        "ftp://host.org/image.tif",
        "NETCDF:/a.nc",
        "<VRTDataset></VRTDataset>",
    ],
)
def test_local_catalogs_cannot_name_virtual_files(href: str) -> None:
    with pytest.raises(EventError, match="only GeoTIFFs in local files"):
        resolve(LOCAL_ITEM, href)


def test_refusals_hide_secrets() -> None:
    for href in ("http:///image.tif?sig=secret", "image\n.tif?sig=secret", "s3://bucket/image.tif?sig=secret"):
        with pytest.raises(EventError) as caught:
            resolve(WEB_ITEM, href)
        assert "secret" not in str(caught.value)


def test_signed_address_is_one_value_of_gdals_path() -> None:
    # A `&` of an address must not end it, nor begin another of GDAL's options.
    path = gdal_path("https://host.org/a.tif?x=1&use_head=no", "naip")
    assert path == (
        "/vsicurl?pc_url_signing=yes&pc_collection=naip&url=https%3A%2F%2Fhost.org%2Fa.tif%3Fx%3D1%26use_head%3Dno"
    )
    assert gdal_path("https://host.org/a.tif", "a&b").count("&") == 2
    assert gdal_path("/data/a.tif", "naip") == "/data/a.tif"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host.org/a.tif", "https://host.org/a.tif"),
        ("https://host.org/a.tif?sig=secret", "https://host.org/a.tif"),
        ("https://user:secret@host.org/a.tif", "https://host.org/a.tif"),
        ("https://secret@host.org", "https://host.org"),
        ("https://user:p@secret@host.org/a.tif", "https://host.org/a.tif"),
        ("HTTP://user:secret@host.org:80/a?b=secret", "HTTP://host.org:80/a"),
        ("/vsicurl/http://user:secret@host.org/a?b=secret", "/vsicurl/http://host.org/a"),
        ("a http://host.org/a?b=secret and http://c:secret@host.org/d", "a http://host.org/a and http://host.org/d"),
        ("'https://host.org/a?b=secret': no", "'https://host.org/a': no"),
        ("https://host.org/@a/mail@b", "https://host.org/@a/mail@b"),
        ("what?", "what?"),
        ("/data/site?x=1/a.tif: cannot be read", "/data/site?x=1/a.tif: cannot be read"),
        ("data/site?x=1&y=2/a.tif", "data/site?x=1&y=2/a.tif"),
        ("/vsicurl?pc_url_signing=yes&url=https%3A%2F%2Fa.org: no", "/vsicurl: no"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


@pytest.mark.parametrize("href", ["it's.tif?sig=secret", "one image.tif?sig=secret", 'a".tif?sig=secret'])
def test_resolved_addresses_are_shown_without_secrets(href: str) -> None:
    assert "secret" not in hide_secrets(resolve(WEB_ITEM, href))


def test_address_in_urllibs_messages_is_shown_without_secrets() -> None:
    text = (
        "HTTPConnectionPool(host='127.0.0.1', port=1): Max retries exceeded with url: /a.json?token=secret (Caused by)"
    )
    assert "secret" not in hide_secrets(text)
