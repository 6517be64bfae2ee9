#!/bin/sh
# Compiles what MicroPython needs of a checkout: compile.sh CHECKOUT FOLDER MPY-CROSS fills FOLDER/tinyknop. What only
# CPython runs stays out; so do line numbers (-O3), which nobody reads on a router.
set -e
tree="$1" out="$2/tinyknop" compiler="$3"

compile() { # from a folder of the checkout into one of ours
	(cd "$tree/$1" && find . -name '*.py' ! -path './host/*' ! -path './crypto/host.py') | while read -r file; do
		file="${file#./}"
		name="$2$file"
		mkdir -p "$(dirname "$out/$name")"
		"$compiler" -O3 -s "tinyknop/$name" -o "$out/${name%.py}.mpy" "$tree/$1/$file"
	done
}

compile tinyknop ""
compile ports ports/
