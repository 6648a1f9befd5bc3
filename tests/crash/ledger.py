"""What was acknowledged, and what is in doubt: the memory that the server is judged by."""

import collections
import threading

ABSENT = None


class Ledger:
    """Of each key the values that may be seen. One value: acknowledged. More: a call that had no answer may have happened or not.

    Every key belongs to one client, so that no two calls about it are under way at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.allowed = collections.defaultdict(lambda: {ABSENT})
        self.acknowledged = self.doubted = self.refused = 0

    def keys(self, kind, owner=None):
        with self.lock:
            return [k for k in self.allowed if k[0] == kind and (owner is None or k[1] == owner)]

    def of(self, key):
        with self.lock:
            return set(self.allowed[key])

    def value(self, key):
        """The one value that it has, or None where it has none or is in doubt."""
        seen = self.of(key)
        return next(iter(seen)) if len(seen) == 1 else ABSENT

    def doubtful(self, key):
        return len(self.of(key)) > 1

    def done(self, key, value):
        with self.lock:
            self.allowed[key] = {value}
            self.acknowledged += 1

    def doubt(self, key, value):
        with self.lock:
            self.allowed[key] = self.allowed[key] | {value}
            self.doubted += 1

    def no(self):
        with self.lock:
            self.refused += 1

    def seen(self, key, value):
        """What the API says now. False: it may not say that. What was in doubt is known from here on."""
        with self.lock:
            if value not in self.allowed[key]:
                return False
            self.allowed[key] = {value}
            return True

    def forget(self, key):
        """Only after damage that the server has told."""
        with self.lock:
            self.allowed.pop(key, None)
