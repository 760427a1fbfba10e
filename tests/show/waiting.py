"""What the scripts of claims share: waiting for something that can be seen, never for a time."""

import time


def until(what, seen, bound):
    """What `seen` gives as soon as that is something, or an error after `bound` seconds."""
    end = time.monotonic() + bound
    while time.monotonic() < end:
        value = seen()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {bound} s: {what}")
