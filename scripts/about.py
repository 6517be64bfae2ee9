"""What each word of a configuration is for; `scripts/man.py` puts that beside what the code knows about it."""

DAEMON = """
state_dir: where the daemon keeps what it must not forget, and its socket; mode 0700
digest_file: the memory of packets that were seen, in fwknop's format (STATE_DIR/digest.cache)
pid_file: where `tinyknop fwknopd` writes its number (STATE_DIR/fwknopd.pid)
ageing: refuse packets whose time and our clock are further apart than max_age (true, but for capture files)
max_age: seconds
replay: remember the packets that were seen; never switch it off
http: take knocks that come as HTTP requests as well; a capture of kind http sets it
allow_any_user_agent: take such requests of any user agent, not of fwknop's alone
enable_x_forwarded_for: believe the X-Forwarded-For of trusted_proxies
trusted_proxies: networks of those proxies (loopback and private networks)
enable_nat_dns: look up the name of an inside host
rules_check_threshold: half-seconds between two looks at what others did to our rules; 0: never (600)
cmd_exec_timeout: seconds that a command may take; 0: any time
sudo_exe: path of sudo
user: who to be once started, with only the capabilities that the configuration needs (whoever starts it)
syslog_identity: our name in syslog and the journal (tinyknop; fwknopd for the front end)
syslog_facility: syslog's facility
log: one line for each event, as sentences, as name=value or as JSON
log_to: where these lines go
verbose: how much `tinyknop fwknopd` logs
enable_ipt_forwarding: allow NAT to inside hosts
enable_ipt_local_nat: allow NAT to a port of this machine
flush_ipt_at_exit: close what is open when the daemon ends; without it what is open keeps its time
enable_firewd_forwarding: the same as enable_ipt_forwarding, for firewalld
enable_firewd_local_nat: the same as enable_ipt_local_nat, for firewalld
flush_firewd_at_exit: the same as flush_ipt_at_exit, for firewalld
snat_translate_ip: rewrite the source of NAT connections to this address
enable_ipt_snat: rewrite the source of NAT connections: to snat_translate_ip, or to ours
enable_firewd_snat: the same as enable_ipt_snat, for firewalld
gpg_home_dir: the keyring of stanzas that name none
gpg_exe: path of gpg
"""
STANZA = """
name: what it is called in the log and in `tinyknop status` (its number)
source: networks that its packets come from; ANY: everywhere
destination: networks that its packets must be sent to (any)
openings: what may be asked for, such as tcp/22 (anything)
restrict_ports: what may never be asked for
key_file: a file with the two lines that `tinyknop keygen` prints, for its owner only
key: the key, as a passphrase: take key_base64
key_base64: the key, at most 32 bytes
hmac_key: the HMAC key, as a passphrase: take hmac_key_base64
hmac_key_base64: the HMAC key, at most 136 bytes
hmac_digest_type: the HMAC
encryption_mode: the cipher's mode; asymmetric: GPG alone
timeout: seconds that an opening lives
max_timeout: the most that a client may ask for (300, for clients that ask)
ports: names of the ports that open
require_all: open on all of these ports or on none
require_hint: refuse packets without a stanza hint, already in the kernel where all stanzas do
cut: end established connections as well when the time is over
require_username: the user name that the packet must have
require_source_address: refuse packets that leave the address to let in to us
require_source: an older name of require_source_address
access_expire: the stanza ends at the beginning of this day
access_expire_epoch: the stanza ends at this second since 1970
enable_cmd_exec: run the commands that packets hold
cmd_exec_user: as this user (root)
cmd_exec_group: as this group (the user's)
enable_cmd_sudo_exec: run them by sudo
cmd_sudo_exec_user: sudo's user
cmd_sudo_exec_group: sudo's group
cmd_cycle_open: the command that opens, in place of a firewall
cmd_cycle_close: the command that closes; NONE: none
cmd_cycle_timer: seconds between the two (the stanza's timeout)
force_nat: lead every opening to this inside host and port
force_snat: rewrite the source of these connections to this address
force_masquerade: rewrite it to ours
forward_all: forward all ports, not only those asked for
disable_dnat: leave the destination as it is
gpg_decrypt_id: the server's GPG key
gpg_decrypt_pw: its passphrase
gpg_allow_no_pw: it has none
gpg_require_sig: refuse messages that are not signed (true, unless gpg_disable_sig is)
gpg_disable_sig: look at no signature
gpg_ignore_sig_verify_error: take signatures that do not verify
gpg_remote_id: key ids that may sign; can be forged: take gpg_fingerprint_id
gpg_fingerprint_id: fingerprints that may sign
gpg_home_dir: the keyring (the daemon's)
gpg_exe: path of gpg (the daemon's)
"""
TARGET = """
host: the server
port: the server's port for knocks
openings: what to open, such as tcp/22,udp/53
address: whom to let in: an address; source: whoever the packet comes from; resolve: our address as the web sees it
timeout: for how many seconds; 0: as the server likes
digest: digest inside the packet
hmac: HMAC around it
mode: encryption mode
user: user name in the packet (yours)
hints: carry a stanza hint, which spares a tinyknop server the search for the key
verify: wait so many seconds for the opening to answer
resolve_url: the page that says our address
key_file: a file with the two lines that `tinyknop keygen` prints, for its owner only
key: the key, as a passphrase
key_base64: the key
hmac_key: the HMAC key, as a passphrase
hmac_key_base64: the HMAC key
"""
# Kind, option: what it is for. A * stands for every kind.
CAPTURE = """
* port: the port that knocks are sent to
* address: the address of ours to listen at (all)
* interface: the interface to hear at
* filter: a filter in tcpdump's language instead of the port; none: everything
packet promisc: hear what is for others as well
packet any_direction: hear what this machine sends as well
packet exit_at_down: end the daemon where the interface disappears for good
packet snap: bytes of the longest IP packet
pcap file: the capture file
tcp read: read the first bytes of each connection as a knock
nfqueue table: the table of the rule that fills the queue
nfqueue chain: its chain
nfqueue queue: the queue's number
nfqueue binary: the program that sets the rule; empty: you do
"""
PORT = """
* binary: the program to run
* destination: rules are for the address that the packet was sent to
* list: the list to fill; $PROTO and $PORT are put in
* list6: the list for IPv6
* chain: the chain for openings
* output_chain: the chain for answers; empty: none
* forward_chain: the chain for NAT to inside hosts; empty: none
* dnat_chain: the chain that rewrites destinations; empty: none
* snat_chain: the chain that rewrites sources; empty: none
* masquerade_chain: the chain that rewrites sources to ours; empty: none
* ipv6: open IPv6 as well
* flush_at_init: empty our chains at the start
* flush_at_exit: take our chains or rules away at the end
* prepend: new rules come first
* comment_check: see at the start that rules can have comments
* open: what opens
* close: what closes
* maxelem: entries in each set; used only when a set is made
* table: our own table
ipset set: the set
firewalld mode: rich (rules of a zone) or direct (iptables' own)
firewalld zone: the zone of rich rules (the default zone)
ipfw start_rule: number of the first rule
ipfw max_rules: how many rules at most
ipfw active_set: set of live rules
ipfw expire_set: set of rules whose end is awaited
ipfw check_state: add a check-state rule
wireguard interface: the interface of the peers
"""
CARRIER = """
* device: the line, such as /dev/ttyUSB0
* baud: its speed
* rtscts: hardware handshake
* xonxoff: software handshake
* host: the router
* port: its port for ssh
* key_file: our private key, without a passphrase
* known_hosts: the file with the router's host key
* jump: go through this host, user@host:port
* user: who we log in as
* password_file: the file with the password
* enable_password_file: the file with the password of the privileged mode
"""
WATCH = """
kind: where the firewall's log lines come from: file, fifo, kmsg, syslog (on loopback) or nflog
path: the file, or the FIFO
port: the port for syslog (514)
address: the address for syslog, on loopback (127.0.0.1)
group: the group of nflog
psad: a folder with psad's files; those that are there count
signatures: psad's signatures (a few of our own)
auto_dl: psad's levels of addresses
snort_rule_dl: psad's levels of rules
psad_conf: psad.conf, for its limits
icmp_types: psad's list of ICMP types
icmp6_types: psad's list of ICMPv6 types
rules: files of Snort rules, which say what a matched rule was
never: networks that are never blocked
log_at: danger level that is logged (1)
block_at: danger level that is blocked; 0: none (0)
block_for: for how many seconds (3600)
most_blocks: how many at once (1000)
ports: ports of kind block, or of a set of addresses
end_grants: danger level that ends a source's openings; 0: none (0)
"""


def texts(block):
    """Returns {name, or (kind, name): what it is for} of one of these blocks."""
    found = {}
    for line in block.strip().split("\n"):
        name, _, text = line.partition(": ")
        kind, blank, option = name.partition(" ")
        found[(kind, option) if blank else name] = text
    return found
