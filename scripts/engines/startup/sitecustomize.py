"""Loaded by every Python process of vLLM at its start: its children end with their parent.

vLLM's server starts its engine and workers as processes, which outlive a
server that is killed. Each therefore asks the kernel to be killed when what
started it is gone; the server itself, whose process ENGINE_PID names, does not.
"""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1

if os.environ.get("ENGINE_PID") not in (None, str(os.getpid())):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
