"""The table of a carrier with a session, [carrier.NAME]: its options, checked, and the secrets in files it names."""

import os

from tinyknop.compat import whole
from tinyknop.errors import ConfigError, PortError


class Table:
    """What a carrier was configured with: `name`, `where` it stands, and `options`, each with its text."""

    def __init__(self, name, options, known):
        """`known`: each option with its default; raises ConfigError for another one."""
        self.name = name
        self.where = options.get("where", "carrier." + name)
        self.options = {}
        for option in sorted(options):
            if option not in known and option not in ("kind", "where"):
                reason = "carrier.%s: %s: no such option of %s (it has: %s)"
                self.wrong(reason % (name, option, options.get("kind"), ", ".join(sorted(known))))
        for option in known:
            self.options[option] = options.get(option, known[option])

    def wrong(self, reason):
        """Raises ConfigError with the place of the carrier's table."""
        raise ConfigError(self.where, reason)

    def whole(self, option, least, top):
        """Returns an option's number; raises ConfigError."""
        text = self.options[option]
        if not least <= whole(text) <= top:
            self.wrong(
                "carrier.%s: %s = %s: write a whole number from %d to %d" % (self.name, option, text, least, top)
            )
        return int(text)

    def yes(self, option):
        """Returns an option that is on or off; raises ConfigError."""
        text = self.options[option]
        for words, value in ((("Y", "yes", "true"), True), (("N", "no", "false", ""), False)):
            if text in words:
                return value
        self.wrong("carrier.%s: %s = %s: write true or false" % (self.name, option, text))

    def secret(self, option):
        """Returns the first line of the file that an option names, "" where it names none; raises PortError."""
        path = self.options[option]
        if not path:
            return ""
        try:
            if os.stat(path)[0] & 0o077:
                raise PortError(self.name, "%s = %s: others can read it: chmod 600 %s" % (option, path, path))
            with open(path) as file:
                return file.readline().rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise PortError(self.name, "%s = %s: cannot be read: %s" % (option, path, error))

    def password(self):
        """Returns the password, "" where there is none; raises PortError."""
        name = self.options["password_env"]
        if not name:
            return self.secret("password_file")
        if not os.getenv(name):
            raise PortError(self.name, "password_env = %s: there is no such variable in the environment" % name)
        return os.getenv(name)
