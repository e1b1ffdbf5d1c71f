"""The tests."""

from cli.process import prepare_process

prepare_process()  # as the scripts do, before torch is loaded: masks take half the time
