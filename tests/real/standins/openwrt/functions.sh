# Stands in for OpenWrt's /lib/functions.sh and /lib/config/uci.sh: what an init script calls of them. A file of UCI is
# a list of shell commands already.
N="
"

append() { # variable, value, separator
	eval "$1=\"\${$1:+\${$1}\${3:- }}\$2\""
}

reset_cb() {
	config_cb() { return 0; }
	option_cb() { return 0; }
	list_cb() { return 0; }
}
reset_cb

config() { # type, name
	SECTIONS=$((SECTIONS + 1))
	config_cb "$1" "${2:-cfg$SECTIONS}"
}

option() {
	local name="$1"
	shift
	option_cb "$name" "$*"
}

list() {
	local name="$1"
	shift
	list_cb "$name" "$*"
}

package() {
	return 0
}

config_load() {
	SECTIONS=0
	. "/etc/config/$1"
	[ "$SECTIONS" = 0 ] || config_cb
}

get_bool() {
	case "$1" in
	1 | on | true | yes | enabled) echo 1 ;;
	0 | off | false | no | disabled) echo 0 ;;
	*) echo "$2" ;;
	esac
}
