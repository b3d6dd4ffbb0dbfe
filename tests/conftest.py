"""What every test may use."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

# Shared machines make single examples slow now and then, and a red run must be red again.
settings.register_profile("eqreg", deadline=None, derandomize=True)
settings.load_profile("eqreg")


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """Stop a test that lacks a program, with the line that installs it.

    It is skipped on a reader's machine; with CI=true or EQREG_STRICT=1 it fails, so that nothing
    goes untested unnoticed.
    """
    strict = os.environ.get("CI") == "true" or os.environ.get("EQREG_STRICT") == "1"

    def stop(how_to_install: str) -> NoReturn:
        (pytest.fail if strict else pytest.skip)(how_to_install)

    return stop


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are heard, also where a shell started the tests in the background or under nohup."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {s: signal.signal(s, handler) for s, handler in usual.items()}
    yield
    for s, handler in before.items():
        signal.signal(s, handler)
