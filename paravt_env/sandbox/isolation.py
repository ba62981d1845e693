"""How code is locked in: the bubblewrap command of a fork server, and whether it works here.

Unprivileged user namespaces: no network, no process but its own, no environment variables, a
read-only file system that holds Python, numpy and PIL and nothing of the user's. There is no second
way: where bubblewrap cannot run, `check` raises and nothing runs. Tests: `pytest
tests/sandbox/test_sandbox.py`.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from paravt_env.sandbox.limits import SandboxError
from paravt_env.sandbox.syscalls import known_machine, seccomp_filter

BWRAP = "bwrap"
PACKAGES = ("numpy", "PIL")
"""What code may import beside the standard library."""

INSIDE = ("guest_server.py", "guest.py", "syscalls.py", "wire.py")
"""What of this package is there."""

GUEST, LIBRARIES, PYTHON = "/guest", "/packages", "/python"
"""Where the worker's program, those packages and Python lie inside: no path of this machine's."""

START = (
    f"import sys; sys.path[:0] = ['{GUEST}', '{LIBRARIES}']; "
    "from paravt_env.sandbox.guest_server import main; main()"
)
"""What a fork server runs; the folders have no `__init__`, so no more of the package is there."""

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
"""The C library and its kin; read-only, and nothing in them is the user's."""

_SINGLE = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""One thread each: a worker may start no other."""


def command(program: Sequence[str], seccomp: int) -> list[str]:
    """The command line that runs a program inside.

    Args:
        program: What runs, as it is called inside.
        seccomp: File descriptor that `syscalls.seccomp_filter` can be read from.

    Raises:
        SandboxError: bubblewrap or a package is not installed.
    """
    binds: list[str] = []
    for source, target in _binds():
        binds += ["--ro-bind", source, target]
    for name in _SYSTEM:
        binds += ["--ro-bind-try", name, name]
    if Path(_standard(), "site-packages").is_dir():  # of the interpreter's own folder
        binds += ["--tmpfs", f"{_inside_standard()}/site-packages"]
        binds += ["--remount-ro", f"{_inside_standard()}/site-packages"]
    settings = ["--setenv", "LD_LIBRARY_PATH", f"{PYTHON}/lib"]
    for name in _SINGLE:
        settings += ["--setenv", name, "1"]
    return [
        *(_bwrap(), "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv", *settings),
        *(*binds, "--remount-ro", "/", "--chdir", "/", "--seccomp", str(seccomp), "--", *program),
    ]


def server_command(seccomp: int) -> list[str]:
    """The command line of a fork server, which talks over its standard input."""
    return command([*_python(), START], seccomp)


def filter_pipe() -> int:
    """A file descriptor to read the fork server's filter from; the caller closes it."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(seccomp_filter(platform.machine(), server=True))
    return read


@lru_cache(maxsize=1)
def check() -> None:
    """Find out once whether code can be locked in here.

    Raises:
        SandboxError: It cannot; the one line says why and what to do.
    """
    machine = platform.machine()
    if sys.platform != "linux" or not known_machine(machine):
        raise SandboxError(
            f"code runs on Linux on x86-64 and 64-bit ARM only, not on {sys.platform} {machine}: "
            "there is no isolation for it here, and code never runs without"
        )
    descriptor = filter_pipe()
    try:
        trial = command([*_python(), "pass"], descriptor)
        done = subprocess.run(
            trial, pass_fds=[descriptor], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"bubblewrap does not run here: {error}") from error
    finally:
        os.close(descriptor)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SandboxError(
            f"bubblewrap cannot isolate here ({said[-1] if said else done.returncode}): it needs "
            "unprivileged user namespaces (sysctl user.max_user_namespaces, "
            "kernel.apparmor_restrict_unprivileged_userns; a container's own seccomp profile); "
            "code never runs without isolation"
        )


def _bwrap() -> str:
    found = shutil.which(BWRAP)
    if found is None:
        raise SandboxError(
            "code needs bubblewrap, and there is no bwrap on the PATH: install it (apt install "
            "bubblewrap, dnf install bubblewrap, conda install -c conda-forge bubblewrap); code "
            "never runs without isolation"
        )
    return found


def _python() -> list[str]:
    """How Python is called inside, up to the program's text.

    -I: no variables, no user's packages; -S: no site-packages; -B: nothing to write.
    """
    name = Path(os.path.realpath(sys.executable)).name
    return [f"{PYTHON}/bin/{name}", "-I", "-S", "-B", "-c"]


def _standard() -> str:
    """The standard library's folder here."""
    return os.path.realpath(sysconfig.get_path("stdlib"))


def _inside_standard() -> str:
    """The same inside, where Python looks for it beside its own folder."""
    return f"{PYTHON}/lib/python{sys.version_info.major}.{sys.version_info.minor}"


@lru_cache(maxsize=1)
def _binds() -> tuple[tuple[str, str], ...]:
    """Files and folders that are seen inside, as (here, there)."""
    executable = os.path.realpath(sys.executable)
    shared = sysconfig.get_config_var("LDLIBRARY") or ""
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / shared
    binds = [(executable, _python()[0]), (_standard(), _inside_standard())]
    if shared.endswith(".so") or ".so." in shared:
        found = sorted(library.parent.glob(f"{shared}*"))
        binds += [(str(path), f"{PYTHON}/lib/{path.name}") for path in found]
    # ctypes needs it; a Python with a folder of its own brings it along
    own = sorted(Path(sysconfig.get_config_var("LIBDIR") or "").glob("libffi.so*"))
    binds += [(str(path), f"{PYTHON}/lib/{path.name}") for path in own]
    here = Path(__file__).parent
    inside = f"{GUEST}/paravt_env/sandbox"
    binds += [(str(here / name), f"{inside}/{name}") for name in INSIDE]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"code needs {name}: pip install 'paravt[code]'")
        folder = Path(spec.origin).parent
        binds.append((str(folder), f"{LIBRARIES}/{name}"))
        wheel = "pillow" if name == "PIL" else name
        if (beside := folder.parent / f"{wheel}.libs").is_dir():  # a wheel's own shared libraries
            binds.append((str(beside), f"{LIBRARIES}/{wheel}.libs"))
    return tuple(binds)
