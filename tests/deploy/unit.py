"""The systemd unit: by systemd-analyze where there is one, and its promises.

That the program runs with memory that is never both written to and executed is
tried on the program itself, where the kernel can do that (Linux 6.3)."""

import configparser
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from files import DEPLOY

UNIT = DEPLOY / "systemd" / "tenantry.service"
PROGRAM = os.environ["TENANTRY_BINARY"]
# What systemd-analyze says of it: 0 is the safest, 10 the least.
EXPOSURE = 20  # in tenths


class Repeated(dict):
    """A section in which a key may stand several times."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def read():
    parser = configparser.RawConfigParser(dict_type=Repeated, strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


def promises(service):
    drain = 30
    assert int(service["TimeoutStopSec"]) > drain, "streams are cut off before they are drained"
    assert service["KillSignal"] == "SIGTERM" and "-HUP $MAINPID" in service["ExecReload"]
    for key, value in [("DynamicUser", "yes"), ("ProtectSystem", "strict"), ("NoNewPrivileges", "yes")]:
        assert service[key] == value, key
    # What it may write to is what it keeps.
    assert service["Environment"] == f"TENANTRY_CATALOGUE__DATA_DIR=/var/lib/{service['StateDirectory']}"


def analysed():
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return print("systemd-analyze is not installed: the unit is not verified")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / UNIT.name
        # It looks whether the program is there.
        copy.write_text(UNIT.read_text().replace("/usr/local/bin/tenantry", PROGRAM))
        run = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True)
        assert run.returncode == 0 and UNIT.name not in run.stderr, run.stderr
        safe = subprocess.run(
            [analyze, "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", copy],
            capture_output=True,
            text=True,
        )
        assert safe.returncode == 0, safe.stdout[-600:] + safe.stderr
        print(safe.stdout.strip().splitlines()[-1])


def without_executable_writes():
    """MemoryDenyWriteExecute holds for the program, its guard and its TLS included."""
    refuse_exec_gain, set_mdwe = 1, 65
    libc = ctypes.CDLL(None, use_errno=True)

    def deny():
        if libc.prctl(set_mdwe, refuse_exec_gain, 0, 0, 0) != 0:
            os._exit(77)

    lines = '{"text": "you are a stupid worthless idiot"}\n'
    run = subprocess.run(
        [PROGRAM, "guard", "score", "--every"], input=lines, capture_output=True, text=True, preexec_fn=deny
    )
    if run.returncode == 77:
        return print("the kernel cannot deny memory that is written to and executed: not tried")
    assert run.returncode == 0 and '"block"' in run.stdout, run.stderr


promises(read())
analysed()
without_executable_writes()
