# Stands in for OpenWrt's procd.sh, and for procd: writes down, a line for each call, what it is told to do.
_told() {
	local word
	printf '%s' "$1"
	shift
	for word in "$@"; do printf '\t%s' "$word"; done
	printf '\n'
}

procd_open_service() { : >/tmp/procd.new; }
procd_open_instance() { _told instance "$@" >>/tmp/procd.new; }
procd_set_param() { _told "$@" >>/tmp/procd.new; }
procd_close_instance() { :; }
procd_add_reload_trigger() { _told trigger "$@" >>/tmp/procd.new; }
procd_add_reload_interface_trigger() { _told interface "$@" >>/tmp/procd.new; }
procd_close_service() {
	service_triggers
	cp /tmp/procd.new /tmp/procd.last
	{ echo set; cat /tmp/procd.new; } >>/tmp/procd.log
}
procd_kill() { _told kill "$@" >>/tmp/procd.log; }
procd_send_signal() { _told signal "$@" >>/tmp/procd.log; }
procd_running() { [ -e "/tmp/running/$1" ]; }
