"""The pytest plugin: an empty store, or an empty registry, for each test that asks for one.

pytest imports this module in every test run of an environment with `sqlmetrics` in it. So it lies beside the package,
which only a fixture loads: an import here would come before coverage measures anything, would install the store below
`sqlmetrics run`, and would fail where an app has a module of its own called `sqlmetrics`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

TYPE_CHECKING = False  # `typing` itself has it too, and is nothing that a test run without metrics should wait for
if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from sqlmetrics import Store
    from sqlmetrics.testing import Stores


class _Between:
    """Puts back what was installed before a test that does not ask for the store.

    Not after each test that does: a switch looks at every object of the process, which takes a fraction of a second.
    """

    def __init__(self, stores: Stores):
        self._stores = stores

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if "sqlmetrics_store" not in getattr(item, "fixturenames", ()):
            self._stores.put_back()


@pytest.fixture(scope="session")
def _sqlmetrics_stores(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    from sqlmetrics.testing import Stores

    stores = Stores(tmp_path_factory.mktemp("sqlmetrics"))
    between = _Between(stores)
    pytestconfig.pluginmanager.register(between)
    yield stores
    pytestconfig.pluginmanager.unregister(between)
    stores.put_back()


@pytest.fixture
def sqlmetrics_store(_sqlmetrics_stores: Stores) -> Iterator[Store]:
    """An empty store, installed for this test: all metrics begin at zero, in all processes.

    SQLMETRICS_PATH names it for the processes that the test starts.
    """
    store = _sqlmetrics_stores.empty()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SQLMETRICS_PATH", store.path)
        yield store


@pytest.fixture
def sqlmetrics_registry() -> CollectorRegistry:
    """An empty registry, for code that is given one: it shows what this test makes in it, in this process."""
    from sqlmetrics.testing import empty_registry

    return empty_registry()
