"""Real-time scheduling for the process that moves the arm, as ros2_control's controller_manager asks for it."""

from __future__ import annotations

import os


def raise_priority(priority: int) -> str:
    """SCHED_FIFO with this priority (1 to 99) for every thread of this process; those made later inherit it.

    Returns what holds now, in words: without the right to it (root, or `rtprio` in /etc/security/limits.conf) nothing
    changes, and a busy machine may then delay the process. 0 leaves the scheduling alone.
    """
    if priority == 0:
        return "normal scheduling, as asked for"
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(priority))
    except ProcessLookupError:
        return raise_priority(priority)  # a thread ended meanwhile
    except OSError as error:
        return f"normal scheduling: SCHED_FIFO {priority} refused ({error.strerror}); rtprio in limits.conf allows it"
    return f"SCHED_FIFO {priority}"
