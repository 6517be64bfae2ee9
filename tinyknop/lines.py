"""A file of lines that survives what happens to files: a torn last line, a disk that takes a part of one, a crash."""

import os

from . import compat, log

# Lines; a file is worth writing anew when it has this many more than twice what it must hold. Flash has little room.
SPARE = 100 if compat.MICROPYTHON else 1000
_FULL = (28, "No space left on device")  # ENOSPC
PART = 1000  # lines between two pauses of whoever writes a file anew


class Lines:
    """Lines are bytes that end in a line feed. Every method raises OSError where the disk does not do its part."""

    def __init__(self, path):
        self.path = path
        self._file = None
        self._count = 0
        self._torn = False
        self._since = None  # lines that came while the file is written anew

    def read(self, anyway=False):
        """Yields the lines of the file with their ends; a last one without its end is torn.

        A file that somebody else wrote, or may write, is not believed: it is read only with `anyway`.
        """
        if compat.exists(self.path):
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno()) if hasattr(os, "fstat") else None
                if status and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
                    what = "read all the same" if anyway else "ignored"
                    log.warning("%s: not ours, or others may write it: %s; chown it, chmod 600 it", self.path, what)
                    if not anyway:
                        return
                self._count = 0
                for line in file:
                    self._count += 1
                    self._torn = not line.endswith(b"\n")
                    yield line

    def append(self, line, lasting=False):
        """Adds a line, which reaches the system at once; `lasting` makes it safe from a power cut too."""
        if self._file is None:
            self._file = compat.append_to(self.path)
        # After a line that a full disk cut short the next one starts on a line of its own.
        line = b"\n" + line if self._torn else line
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(*_FULL)  # the disk took a part of the line
        self._torn = False
        self._count += 1
        if self._since is not None:
            self._since.append(line)
        if lasting:
            compat.fsync(self._file)

    def rewrite(self, lines):
        """Puts just these lines in the place of what was there, all at once."""
        for _ in self.renewal(lines):
            pass

    def renewal(self, lines):
        """Does the same a part at a time, as it is iterated over; lines that are added meanwhile follow these.

        Another one that begins before this is through puts an end to it.
        """
        path, count, part = self.path + ".new", 0, []
        new = _opened(path)
        since: list = []
        self._since = since
        try:
            for line in lines:
                part.append(line)
                count += 1
                if count % PART == 0:
                    _write(new, part)
                    part = []
                    yield
                    if self._since is not since:
                        return
            _write(new, part + since)
            os.rename(path, self.path)
        finally:
            new.close()
            if self._since is since:
                self._since = None
        if self._file is not None:
            self._file.close()
            self._file = None  # or where it cannot be opened again, every later line would be a fault
        self._file = compat.append_to(self.path)
        self._count = count + len(since)
        self._torn = False

    def overgrown(self, needed):
        """Tells whether the file is worth writing anew, with so many lines needed."""
        return self._count > 2 * needed + SPARE


def _opened(path):
    """Opens an empty file for appending."""
    try:
        os.remove(path)
    except OSError:
        pass
    return compat.append_to(path)


def _write(file, lines):
    """Writes lines that are safe from a power cut then; in parts, since a large one takes the disk long."""
    data = b"".join(lines)
    if file.write(data) != len(data):
        raise OSError(*_FULL)
    compat.fsync(file)
