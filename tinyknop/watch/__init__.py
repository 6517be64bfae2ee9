"""Log watch: who is scanning us, told from the lines of the firewall's LOG rules or the packets of an NFLOG group.

Optional: nothing here is imported unless a [watch] table or `tinyknop watch` asks for it. Levels are those of psad
2.4.6, and its files are read as they are (docs/watch.md).
"""
