"""Settings: fwknopd.conf's variables, their ranges, and the captures and ports that they make."""

from tinyknop.config.outfit import outfit
from tinyknop.errors import ConfigError
from tinyknop.settings import KEYWORDS, Settings


def made(*pairs, warn=None, any_case=False):
    return Settings([(name, text, "f:%d" % (i + 1)) for i, (name, text) in enumerate(pairs)], warn, any_case)


def refusal(*pairs, warn=None):
    try:
        made(*pairs, warn=warn)
    except ConfigError as error:
        return error
    raise AssertionError("%r was taken" % (pairs,))


def test_defaults():
    settings = made()
    assert settings.state_dir == "/var/lib/tinyknop"
    assert settings.digest_file == "/var/lib/tinyknop/digest.cache"
    assert settings.pid_file == "/var/lib/tinyknop/fwknopd.pid"
    assert settings.ageing and settings.max_age == 120 and settings.replay and not settings.test
    assert settings.flush_at_exit and settings.syslog_facility == "LOG_DAEMON"
    assert settings.captures == [] and settings.ports == {} and settings.carriers == {}


def test_files_follow_the_run_directory():
    settings = made(("FWKNOP_RUN_DIR", "/run/x/"), ("DIGEST_FILE", "/d"))
    assert settings.pid_file == "/run/x/fwknopd.pid" and settings.digest_file == "/d"
    refusal(("FWKNOP_RUN_DIR", "run"))


def test_the_last_of_two_lines_counts():
    assert made(("MAX_SPA_PACKET_AGE", "10"), ("MAX_SPA_PACKET_AGE", "20")).max_age == 20


def test_names_are_in_capitals_but_in_our_own_format():
    assert made(("max_spa_packet_age", "10"), any_case=True).max_age == 10
    assert "no such keyword" in refusal(("max_spa_packet_age", "10")).reason
    said = []
    assert made(("pcap_intf", "eth1"), warn=said.append).interface == "eth0"
    assert "[*] Ignoring unknown configuration parameter: 'pcap_intf' in f" in said[0]


def test_ranges_are_fwknopds():
    for name, text in (
        ("MAX_SPA_PACKET_AGE", "0"),
        ("MAX_SPA_PACKET_AGE", "100001"),
        ("PCAP_LOOP_SLEEP", "0"),
        ("MAX_SNIFF_BYTES", "32769"),
        ("UDPSERV_PORT", "131072"),
        ("TCPSERV_PORT", "0"),
        ("RULES_CHECK_THRESHOLD", "131072"),
        ("IPFW_ACTIVE_SET_NUM", "64"),
        ("SYSLOG_FACILITY", "LOG_KERN"),
        ("PCAP_DISPATCH_COUNT", "x"),
    ):
        error = refusal((name, text), warn=lambda text: None)
        assert error.stage == "f:1" and error.reason.startswith(name)


def test_the_capture_is_made_of_interface_and_filter():
    settings = outfit(made(("PCAP_INTF", "eth1"), ("PCAP_FILTER", "udp port 1234"), ("EXIT_AT_INTF_DOWN", "N")), "f")
    wanted = {"kind": "packet", "interface": "eth1", "filter": "udp port 1234", "promisc": "N", "where": "f:1"}
    wanted.update({"any_direction": "N", "exit_at_down": "N", "snap": "1500"})
    assert settings.captures == [wanted]


def test_a_file_or_the_udp_server_takes_the_place_of_the_capture():
    settings = outfit(made(("ENABLE_UDP_SERVER", "Y"), ("UDPSERV_PORT", "5000")), "f")
    assert settings.captures == [{"kind": "udp", "port": "5000", "where": "f"}]
    settings = outfit(made(("PCAP_FILE", "/x.pcap"), ("ENABLE_UDP_SERVER", "Y")), "f")
    assert settings.captures[0]["kind"] == "pcap" and settings.ageing is False
    assert made(("PCAP_FILE", "/x.pcap"), ("ENABLE_SPA_PACKET_AGING", "Y")).ageing is True
    assert made().ageing is True


def test_the_tcp_server_reads_only_what_no_capture_would():
    for text, read in (("udp port 62201", "Y"), ("port 62201", "N")):
        settings = outfit(made(("ENABLE_TCP_SERVER", "Y"), ("PCAP_FILTER", text)), "f")
        assert [one["kind"] for one in settings.captures] == ["packet", "tcp"]
        assert settings.captures[1]["read"] == read
    settings = outfit(made(("ENABLE_TCP_SERVER", "Y"), ("ENABLE_UDP_SERVER", "Y")), "f")
    assert [one["kind"] for one in settings.captures] == ["udp"]


def test_the_firewalls_name_chooses_the_port():
    chain = "ACCEPT, filter, INPUT, 1, OTHER, 1"
    settings = made(("IPT_INPUT_ACCESS", chain), ("FIREWALL_EXE", "/sbin/iptables"), ("FLUSH_IPT_AT_EXIT", "N"))
    port = outfit(settings, "f").ports["firewall"]
    assert (port["kind"], port["chain"], port["binary"]) == ("iptables", chain, "/sbin/iptables")
    assert (port["flush_at_init"], port["flush_at_exit"], port["prepend"]) == ("Y", "N", "N")
    for program, kind in (
        ("/usr/sbin/iptables-legacy", "iptables"),
        ("/usr/bin/firewall-cmd", "firewalld"),
        ("/sbin/ipfw", "ipfw"),
        ("/sbin/pfctl", "pf"),
        ("/usr/sbin/nft", "nftables"),
        ("/usr/sbin/ipset", "ipset"),
    ):
        assert outfit(made(("FIREWALL_EXE", program)), "f").ports["firewall"]["kind"] == kind
    assert "is no firewall" in refusal(("FIREWALL_EXE", "/bin/true")).reason
    assert outfit(made(), "f").ports["firewall"]["kind"] in ("iptables", "nftables")


def test_chains_are_there_when_their_switch_is_on():
    def chains(*pairs):
        port = outfit(made(("FIREWALL_EXE", "iptables"), *pairs), "f").ports["firewall"]
        return sorted([name for name in port if name.endswith("chain") and port[name]])

    assert chains() == ["chain"]
    assert chains(("ENABLE_IPT_OUTPUT", "Y")) == ["chain", "output_chain"]
    nat = ["chain", "dnat_chain", "forward_chain"]
    assert chains(("ENABLE_IPT_FORWARDING", "Y")) == nat and chains(("ENABLE_IPT_LOCAL_NAT", "Y")) == nat
    assert chains(("ENABLE_IPT_SNAT", "Y")) == ["chain"]
    both = (("ENABLE_IPT_SNAT", "Y"), ("ENABLE_IPT_FORWARDING", "Y"))
    assert chains(*both) == sorted(nat + ["masquerade_chain", "snat_chain"])
    assert made(*both).snat == "masquerade" and made(*both, ("SNAT_TRANSLATE_IP", "192.0.2.1")).snat == "192.0.2.1"


def test_firewalld_goes_by_variables_of_its_own():
    pairs = (("FIREWALL_EXE", "/usr/bin/firewall-cmd"), ("ENABLE_IPT_OUTPUT", "Y"), ("ENABLE_FIREWD_FORWARDING", "Y"))
    settings = made(*pairs)
    assert settings.output is False and settings.forwarding is True


def test_only_an_n_keeps_the_rules_at_the_end():
    assert made(("FLUSH_IPT_AT_EXIT", "0"), warn=lambda text: None).flush_at_exit is True
    assert made(("FLUSH_IPT_AT_EXIT", "no"), warn=lambda text: None).flush_at_exit is False


def test_every_variable_of_fwknopd_is_known():
    known = """CONFIG_FILE OVERRIDE_CONFIG PCAP_INTF PCAP_FILE ENABLE_PCAP_PROMISC PCAP_FILTER PCAP_DISPATCH_COUNT
    PCAP_LOOP_SLEEP ENABLE_PCAP_ANY_DIRECTION EXIT_AT_INTF_DOWN MAX_SNIFF_BYTES ENABLE_SPA_PACKET_AGING
    MAX_SPA_PACKET_AGE ENABLE_DIGEST_PERSISTENCE RULES_CHECK_THRESHOLD CMD_EXEC_TIMEOUT ENABLE_SPA_OVER_HTTP
    ALLOW_ANY_USER_AGENT ENABLE_X_FORWARDED_FOR ENABLE_TCP_SERVER TCPSERV_PORT ENABLE_UDP_SERVER UDPSERV_PORT
    UDPSERV_SELECT_TIMEOUT ENABLE_NFQ_CAPTURE NFQ_INTERFACE NFQ_PORT NFQ_TABLE NFQ_CHAIN NFQ_QUEUE_NUMBER NFQ_LOOP_SLEEP
    LOCALE SYSLOG_IDENTITY SYSLOG_FACILITY ENABLE_DESTINATION_RULE ENABLE_RULE_PREPEND ENABLE_NAT_DNS
    ENABLE_IPT_FORWARDING ENABLE_IPT_LOCAL_NAT ENABLE_IPT_SNAT SNAT_TRANSLATE_IP ENABLE_IPT_OUTPUT FLUSH_IPT_AT_INIT
    FLUSH_IPT_AT_EXIT IPT_INPUT_ACCESS IPT_OUTPUT_ACCESS IPT_FORWARD_ACCESS IPT_DNAT_ACCESS IPT_SNAT_ACCESS
    IPT_MASQUERADE_ACCESS ENABLE_IPT_COMMENT_CHECK ENABLE_FIREWD_FORWARDING ENABLE_FIREWD_LOCAL_NAT ENABLE_FIREWD_SNAT
    ENABLE_FIREWD_OUTPUT FLUSH_FIREWD_AT_INIT FLUSH_FIREWD_AT_EXIT FIREWD_INPUT_ACCESS FIREWD_OUTPUT_ACCESS
    FIREWD_FORWARD_ACCESS FIREWD_DNAT_ACCESS FIREWD_SNAT_ACCESS FIREWD_MASQUERADE_ACCESS ENABLE_FIREWD_COMMENT_CHECK
    FLUSH_IPFW_AT_INIT FLUSH_IPFW_AT_EXIT IPFW_START_RULE_NUM IPFW_MAX_RULES IPFW_ACTIVE_SET_NUM IPFW_EXPIRE_SET_NUM
    IPFW_EXPIRE_PURGE_INTERVAL IPFW_ADD_CHECK_STATE PF_ANCHOR_NAME PF_EXPIRE_INTERVAL FWKNOP_RUN_DIR FWKNOP_CONF_DIR
    ACCESS_FILE ACCESS_FOLDER FWKNOP_PID_FILE DIGEST_FILE DIGEST_DB_FILE GPG_HOME_DIR GPG_EXE SUDO_EXE FIREWALL_EXE
    VERBOSE FAULT_INJECTION_TAG""".split()
    tables = (KEYWORDS.rows, KEYWORDS.later, KEYWORDS.idle)
    assert [name for name in known if not [table for table in tables if name in table]] == []
