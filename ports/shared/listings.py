"""What `nft` lists, read for the ports that work with nftables. This is no kind of port: no I/O here."""

from tinyknop.errors import PortError


def rows(listing):
    """Returns [family, table, chain] of each chain in a list of them; of a base chain its other words follow."""
    found: list = []
    table: list = []
    for words in [line.split() for line in listing.split("\n")]:
        table = words[1:3] if words[:1] == ["table"] else table
        if words[:1] == ["chain"]:
            found.append(table + words[1:2])
        elif words[:1] == ["type"] and found:
            found[-1] += words
    return found


def refuse_foreign(port, table, known, found):
    """Raises PortError where `inet <table>`, which we take away with all that is in it, has chains of others.

    `known`: (name, priority) of our own chains; nft prints the priority of some as "filter - 10".
    """
    for row in found:
        ours = [1 for name, number in known if row[2] == name and row[-3:-2] in (["%d;" % number], ["10;"])]
        if row[:2] == ["inet", table] and not ours:
            reason = 'table = "%s" has a chain of yours (%s), and would be deleted with it: it has to be one of our own'
            raise PortError(port, reason % (table, row[2]))


def listed(listing):
    """Returns key -> (value, "" in a set; seconds left) of the elements that `nft list set` printed."""
    found = {}
    for item in listing.partition("elements = {")[2].partition("}")[0].split(","):
        item, _, value = " ".join(item.split()).partition(" : ")
        key, _, times = item.partition(" timeout ")
        left, rest = 0, times.partition(" expires ")[2].replace("ms", "x")  # as in 1h23m19s992ms
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
            number, _, after = rest.partition(unit)
            if number.isdigit():
                left, rest = left + int(number) * size, after
        if key:
            found[key] = (value, left)
    return found
