#!/bin/sh
# Makes the virtual environment: ./setup.sh PYTHON FOLDER. Installs what is missing from the system where it may.
# Without an NVIDIA driver it takes PyTorch's CPU builds from TORCH_INDEX.
set -eu
python=$1
venv=$2

fail() {
    echo "error: $1" >&2
    exit 1
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "$python is not Python 3.10 or newer; name another one: make setup PYTHON=python3.12"

missing=""
command -v gdal-config >/dev/null || missing="$missing libgdal-dev"
command -v g++ >/dev/null || missing="$missing g++"
"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
"$python" -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' ||
    missing="$missing python3-dev"
# OpenCV's wheel needs these two at run time.
ldconfig -p 2>/dev/null | grep -q 'libGL\.so\.1' || missing="$missing libgl1"
ldconfig -p 2>/dev/null | grep -q 'libglib-2\.0\.so\.0' || missing="$missing libglib2.0-0"

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "install the equivalents of these Debian packages, then try again:$missing"
    if [ "$(id -u)" = 0 ]; then
        root=""
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        root="sudo"
    else
        fail "run this, then try again: sudo apt-get install$missing"
    fi
    $root apt-get update -qq
    # shellcheck disable=SC2086  # several packages, one word each
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

"$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
$pip install --quiet --upgrade pip
# GDAL's Python bindings must have the version of the system's library, and are built here: NumPy has to be there
# first, and build isolation off, or they come without array support.
$pip install --quiet "numpy>=2.0" setuptools wheel
$pip install --quiet --no-build-isolation "GDAL==$(gdal-config --version)"
index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
if nvidia-smi -L >/dev/null 2>&1 || [ -e /proc/driver/nvidia/version ]; then
    echo "PyTorch with CUDA, for the GPU of this machine: about 3 GB to download, 6 GB on the disk"
else
    echo "PyTorch without CUDA, as there is no NVIDIA driver: about 0.3 GB to download, 1 GB on the disk, from $index"
    pair=$(grep -E '^torch(vision)?[>=]' requirements.txt)
    # From this index only: torch of one and torchvision of another do not fit together.
    # shellcheck disable=SC2086  # two requirements, one word each
    env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
        $pip install --quiet --retries 0 --timeout 15 --index-url "$index" $pair 2>/dev/null ||
        echo "it cannot be had there: PyTorch with CUDA instead, about 3 GB to download, 6 GB on the disk"
fi
$pip install --quiet -r requirements.txt -r requirements-report.txt -r requirements-stac.txt
"$venv/bin/python" -c 'import cv2, torch, torchvision; from osgeo import gdal_array'
echo "ready: $venv"
