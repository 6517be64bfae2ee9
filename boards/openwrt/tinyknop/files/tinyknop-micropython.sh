#!/bin/sh
# `tinyknop CONFIG` is the daemon, `tinyknop knock FILE NAME` one knock.
exec /usr/bin/micropython -X heapsize=1m -m tinyknop "$@"
