"""`sqlmetrics run` with import hooks of others, as ddtrace, wrapt, New Relic or typeguard have them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import prometheus_client
import pytest
from launching import jobs, run, write

pytestmark = [pytest.mark.promise(12), pytest.mark.slow]

_HOOKS = {
    "a finder that asks all finders": """
        class Hook:
            busy = set()
            def find_spec(self, name, path=None, target=None):
                if name in self.busy: return None
                self.busy.add(name)
                try: return importlib.util.find_spec(name)
                finally: self.busy.discard(name)
    """,
    "a loader that wraps another": """
        class Loader:
            def __init__(self, loader): self.loader = loader
            def __getattr__(self, name): return getattr(self.__dict__.get("loader"), name)
            def create_module(self, spec): return self.loader.create_module(spec)
            def exec_module(self, module):
                self.loader.exec_module(module)
                print("wrapped", module.__name__)
        class Hook:
            busy = set()
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client" or name in self.busy: return None
                self.busy.add(name)
                try: spec = importlib.util.find_spec(name)
                finally: self.busy.discard(name)
                spec.loader = Loader(spec.loader)
                return spec
    """,
    "a loader whose method is replaced": """
        class Hook:
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client": return None
                others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
                spec = next(spec for spec in others if spec)
                execute = spec.loader.exec_module
                def exec_module(module):
                    del spec.loader.exec_module
                    execute(module)
                    print("replaced", module.__name__)
                spec.loader.exec_module = exec_module
                return spec
    """,
    "a finder that asks nobody": """
        class Loader(importlib.machinery.SourceFileLoader):
            def exec_module(self, module):
                super().exec_module(module)
                print("compiled", module.__name__)
        class Hook:
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client": return None
                spec = importlib.machinery.PathFinder.find_spec(name, path, target)
                spec.loader = Loader(spec.loader.name, spec.loader.path)
                return spec
    """,
    "a lazy loader": """
        class Hook:
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client": return None
                spec = importlib.machinery.PathFinder.find_spec(name, path, target)
                spec.loader = importlib.util.LazyLoader(spec.loader)
                return spec
    """,
    "a loader that has nothing else": """
        class Loader:
            def __init__(self, loader): self.create_module, self.exec_module = loader.create_module, loader.exec_module
        class Hook:
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client": return None
                spec = importlib.machinery.PathFinder.find_spec(name, path, target)
                spec.loader = Loader(spec.loader)
                return spec
    """,
    "a loader of old": """
        class Loader:
            def __init__(self, loader): self.loader = loader
            def load_module(self, name): return self.loader.load_module(name)
        class Hook:
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client": return None
                spec = importlib.machinery.PathFinder.find_spec(name, path, target)
                spec.loader = Loader(spec.loader)
                return spec
    """,
    "a finder of old": """
        class Hook:
            def find_module(self, name, path=None):
                return None
    """,
    "a finder that looks at loaders": """
        class Hook:
            busy = False
            def find_spec(self, name, path=None, target=None):
                if name != "prometheus_client" or self.busy: return None
                Hook.busy = True
                spec = importlib.util.find_spec(name)
                Hook.busy = False
                loader = spec.loader
                assert isinstance(loader, importlib.machinery.SourceFileLoader), type(loader)
                assert loader.get_filename(name) == loader.path == spec.origin and "Counter" in loader.get_source(name)
                assert loader.get_code(name).co_filename == spec.origin and loader.is_package(name)
                return spec
    """,
    "a list of finders of the app's own": """
        class Hook:
            def find_spec(self, name, path=None, target=None):
                return None
        sys.meta_path = list(sys.meta_path)
    """,
}
_SAY = """
import copy, importlib.util, inspect, sys, warnings
warnings.simplefilter("ignore")
spec = copy.deepcopy(importlib.util.find_spec("prometheus_client"))
print("sqlmetrics" in sys.modules, spec.origin.endswith("__init__.py"))
import prometheus_client
print(prometheus_client.values.ValueClass.__module__)
prometheus_client.Counter("jobs", "Jobs", ["by"]).labels("it").inc()
import sqlmetrics
print({type(module.__spec__.loader).__name__ for module in (prometheus_client, sqlmetrics)} & {"_Loader"})
print("Counter" in inspect.getsource(prometheus_client), "Counter" in dir(prometheus_client))
"""
_SAID = ["False True", "sqlmetrics.values", "set()", "True True"]
_ADD = "\nsys.meta_path.insert(0, Hook())\n"


def hook(kind: str) -> str:
    """The code of a hook, at the left, in front of all others."""
    lines = "\n".join(line.removeprefix(" " * 8) for line in _HOOKS[kind].splitlines())
    return f"import importlib.machinery, importlib.util, sys\n{lines}{_ADD}"


def said(output: str) -> list[str]:
    """What the program says, without what the hooks say."""
    return [line for line in output.splitlines() if line.split()[0] not in ("wrapped", "replaced", "compiled")]


@pytest.mark.parametrize("kind", _HOOKS)
def test_an_import_hook_that_comes_later_and_the_launcher_s_both_work(kind: str, folder: Path, path: str) -> None:
    """The program brings it, so it is asked first."""
    done = run(sys.executable, str(write(folder, "program.py", hook(kind) + _SAY)), path=path)

    assert (said(done.stdout), done.stderr) == (_SAID, "")
    assert done.stdout.count("prometheus_client") == (kind.split()[-1] in ("another", "replaced", "nobody"))
    assert jobs(path) == {"it": 1}


@pytest.mark.parametrize("kind", _HOOKS)
def test_an_import_hook_that_comes_earlier_and_the_launcher_s_both_work(kind: str, folder: Path, path: str) -> None:
    """Another launcher inside of this one brings it, and lets the next `sitecustomize` run."""
    (folder / "hook").mkdir()
    onward = "import os; sys.path.remove(os.path.dirname(__file__)); del sys.modules['sitecustomize']"
    write(folder / "hook", "sitecustomize.py", f"{hook(kind)}\n{onward}; import sitecustomize\n")
    program = write(folder, "program.py", _SAY)
    done = run("sh", "-c", f"PYTHONPATH={folder}/hook:$PYTHONPATH exec {sys.executable} {program}", path=path)

    assert (said(done.stdout), done.stderr) == (_SAID, "")
    assert jobs(path) == {"it": 1}


@pytest.mark.parametrize("kind", sorted(_HOOKS.keys() - {"a finder that looks at loaders"}))
def test_an_import_hook_of_a_launcher_that_hides_ours_works_beside_it(kind: str, folder: Path, path: str) -> None:
    """It lets no other `sitecustomize` run: what it finds first, and wraps, becomes the package."""
    (folder / "hook").mkdir()
    write(folder / "hook", "sitecustomize.py", hook(kind))
    program = write(folder, "program.py", _SAY)
    done = run("sh", "-c", f"PYTHONPATH={folder}/hook:$PYTHONPATH exec {sys.executable} {program}", path=path)

    assert (said(done.stdout), done.stderr) == (["False False", *_SAID[1:]], "")
    assert jobs(path) == {"it": 1}


def test_a_package_in_a_zip_archive_is_switched(folder: Path, path: str) -> None:
    """Its loader is `zipimport`'s."""
    package = Path(prometheus_client.__file__).parent
    shutil.copytree(package, folder / "zip/prometheus_client", ignore=shutil.ignore_patterns("__pycache__"))
    archive = shutil.make_archive(str(folder / "archive"), "zip", folder / "zip")
    program = f"import sys; sys.path.insert(0, {archive!r})\n{_SAY}print(prometheus_client.__file__)"
    done = run(sys.executable, str(write(folder, "program.py", program)), path=path)

    assert (done.stdout.splitlines()[:-1], done.stderr) == (_SAID, "")
    assert done.stdout.splitlines()[-1].startswith(archive)
    assert jobs(path) == {"it": 1}


def test_a_package_that_fails_at_first_is_switched_when_it_is_imported_again(folder: Path, path: str) -> None:
    """As where what it needs is put in place later."""
    program = """
import sys
sys.modules["wsgiref.simple_server"] = None
for _ in range(2):
    try: import prometheus_client
    except ImportError as error: print(error)
del sys.modules["wsgiref.simple_server"]
"""
    done = run(sys.executable, str(write(folder, "program.py", program + _SAY)), path=path)

    assert (done.stdout.splitlines()[2:], done.stderr) == (_SAID, "")
    assert jobs(path) == {"it": 1}


def test_threads_that_import_at_once_find_all_of_their_modules(folder: Path, path: str) -> None:
    """The finder does not leave the list of finders while others go through it."""
    for number in range(200):
        write(folder, f"module_{number}.py", "")
    program = """
import importlib, sys, threading
class Hook:
    def find_spec(self, name, path=None, target=None): return None
def load(start):
    for number in range(start, 200, 4):
        sys.meta_path.insert(0, Hook())
        importlib.import_module(f"module_{number}")
        if number == 100: import prometheus_client
threads = [threading.Thread(target=load, args=(start,)) for start in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
import prometheus_client
print(prometheus_client.values.ValueClass.__module__, len(sys.meta_path) < 250)
"""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = run(sys.executable, str(write(folder, "program.py", program)), path=path, env=environment)

    assert (done.stdout, done.stderr) == ("sqlmetrics.values True\n", "")
