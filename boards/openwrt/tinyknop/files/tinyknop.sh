#!/bin/sh
# `tinyknop COMMAND ...`; alone, so that no module of the current folder gets in between.
exec /usr/bin/python3 -I -c 'import sys
sys.path.insert(0, "/usr/lib/tinyknop")
sys.argv[0] = "tinyknop"
from tinyknop.host.cli import main
sys.exit(main())' "$@"
