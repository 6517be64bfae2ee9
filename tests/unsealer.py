"""Prints what `unseal` makes of each case in a file of `mutants.words`: run on either Python. unsealer.py FILE"""

import binascii
import sys

from tinyknop import Keys, Rejected, unseal

FIELDS = "rand username timestamp version message_type message nat_access server_auth client_timeout digest_type"


def verdict(line):
    """Returns one line: "no STAGE REASON", or "yes" and the fields."""
    parts = line.split()
    data, key, hmac_key = [binascii.unhexlify(part) if part != "-" else b"" for part in parts[:3]]
    try:
        packet = unseal(data, Keys(key, hmac_key or None, parts[3], parts[4]))
    except Rejected as error:
        return "no %s %s" % (error.stage, error.reason)
    fields = " ".join([str(getattr(packet, name)) for name in FIELDS.split()])
    return "yes " + binascii.hexlify(fields.encode()).decode()  # server_auth may hold a line feed


def main(path):
    with open(path) as file:
        for line in file:
            print(verdict(line))


if __name__ == "__main__":
    main(sys.argv[1])
