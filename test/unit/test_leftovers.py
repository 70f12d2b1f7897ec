"""The check that tests leave no process behind sees children, grandchildren and orphans, and nothing else."""

import os
import subprocess
import sys

from helpers import leftovers

SLEEP = "import time; time.sleep(60)"
# A process that starts another one (stdout: DEVNULL) and ends.
ORPHAN = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=-3).pid)"


def test_child_and_orphan_processes_are_found_until_they_end():
    child = subprocess.Popen([sys.executable, "-c", SLEEP])
    orphan = int(subprocess.check_output([sys.executable, "-c", ORPHAN], text=True))
    found = leftovers.find(os.getpid())
    assert {child.pid, orphan} <= set(found) and SLEEP in found[orphan] and os.getpid() not in found
    leftovers.kill([child.pid, orphan])
    assert not {child.pid, orphan} & set(leftovers.wait_until_gone(os.getpid()))
    child.wait()
