# Stands in for OpenWrt's /lib/functions/network.sh: a network is up where /tmp/networks has its device.
network_get_device() { # variable, network
	[ -f "/tmp/networks/$2" ] && eval "$1=\"\$(cat /tmp/networks/$2)\""
}
