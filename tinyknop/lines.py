"""A file of lines that survives what happens to files: a torn last line, a disk that takes a part of one, a crash."""

import os

from . import compat, log

# Lines; a file is worth writing anew when it has this many more than twice what it must hold. Flash has little room.
SPARE = 100 if compat.MICROPYTHON else 1000


class Lines:
    """Lines are bytes that end in a line feed. Every method raises OSError where the disk does not do its part."""

    def __init__(self, path):
        self.path = path
        self._file = None
        self._count = 0
        self._torn = False

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
                yield from file

    def append(self, line, lasting=False):
        """Adds a line, which reaches the system at once; `lasting` makes it safe from a power cut too."""
        if self._file is None:
            self._file = compat.append_to(self.path)
        # After a line that a full disk cut short the next one starts on a line of its own.
        line = b"\n" + line if self._torn else line
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(28)  # ENOSPC: the disk took a part of the line
        self._torn = False
        self._count += 1
        if lasting:
            compat.fsync(self._file)

    def rewrite(self, lines):
        """Puts just these lines in the place of what was there, all at once."""
        compat.replace(self.path, b"".join(lines))
        if self._file is not None:
            self._file.close()
        self._file = compat.append_to(self.path)
        self._count = len(lines)
        self._torn = False

    def overgrown(self, needed):
        """Tells whether the file is worth writing anew, with so many lines needed."""
        return self._count > 2 * needed + SPARE
