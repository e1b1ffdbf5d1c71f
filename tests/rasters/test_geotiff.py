import subprocess
import sys

from tests.scripts import PROJECT

FAILING = """
from threading import Thread
from rasters.geotiff import gdal, osr

def repeat(call):
    for _ in range(1000):
        try:
            call()
        except RuntimeError as error:
            assert str(error)
        else:
            raise AssertionError("no error")

calls = (lambda: gdal.Open("missing.tif"), lambda: osr.SpatialReference().ImportFromWkt("no CRS"))
threads = [Thread(target=repeat, args=(call,)) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("ended")
"""


def test_errors_on_two_threads_do_not_wait_for_each_other() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")
