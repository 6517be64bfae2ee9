"""A few signatures of our own, in the form of psad's file: what no honest client sends, and doors that only scans try.

Numbers from 9000001 on are ours. Ports are as IANA or their makers name them.
"""

SIGNATURES = """
alert tcp any any -> any any (msg:"no TCP flags"; flags:none; sid:9000001; psad_id:9000001; psad_dl:2;)
alert tcp any any -> any any (msg:"FIN alone"; flags:F; sid:9000002; psad_id:9000002; psad_dl:2;)
alert tcp any any -> any any (msg:"FIN, PSH and URG"; flags:FPU; sid:9000003; psad_id:9000003; psad_dl:2;)
alert tcp any any -> any any (msg:"SYN and FIN"; flags:SF; sid:9000004; psad_id:9000004; psad_dl:2;)
alert ip any any -> any any (msg:"from its own address"; sameip; sid:9000005; psad_id:9000005; psad_dl:2;)
alert ip any any -> any any (msg:"loose source route"; ipopts:lsrr; sid:9000006; psad_id:9000006; psad_dl:2;)
alert ip any any -> any any (msg:"strict source route"; ipopts:ssrr; sid:9000007; psad_id:9000007; psad_dl:2;)
alert tcp any any -> any 0 (msg:"TCP port 0"; sid:9000008; psad_id:9000008; psad_dl:2;)
alert udp any any -> any 0 (msg:"UDP port 0"; sid:9000009; psad_id:9000009; psad_dl:2;)
alert tcp any any -> any 23 (msg:"telnet"; flags:S; sid:9000010; psad_id:9000010; psad_dl:1;)
alert tcp any any -> any 2323 (msg:"telnet, as worms try it"; flags:S; sid:9000011; psad_id:9000011; psad_dl:1;)
alert tcp any any -> any 3389 (msg:"remote desktop"; flags:S; sid:9000012; psad_id:9000012; psad_dl:1;)
alert tcp any any -> any 5900:5903 (msg:"VNC"; flags:S; sid:9000013; psad_id:9000013; psad_dl:1;)
alert tcp any any -> any 445 (msg:"SMB"; flags:S; sid:9000014; psad_id:9000014; psad_dl:1;)
alert tcp any any -> any 6379 (msg:"Redis"; flags:S; sid:9000015; psad_id:9000015; psad_dl:1;)
alert tcp any any -> any 2375 (msg:"Docker without TLS"; flags:S; sid:9000016; psad_id:9000016; psad_dl:1;)
alert tcp any any -> any 5555 (msg:"Android debug bridge"; flags:S; sid:9000017; psad_id:9000017; psad_dl:1;)
alert udp any any -> any 1900 (msg:"SSDP from outside"; sid:9000018; psad_id:9000018; psad_dl:1;)
alert udp any any -> any 11211 (msg:"memcached"; sid:9000019; psad_id:9000019; psad_dl:1;)
"""
