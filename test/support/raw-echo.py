"""Packets of any IP protocol, by number: one end sends, the other sends back.

usage: raw-echo.py echo PROTOCOL | raw-echo.py ask PROTOCOL ADDRESS COUNT LENGTH
PROTOCOL udp: datagrams to port 443. `ask` prints how many came back as they went.
"""

import os
import socket
import sys

what, name = sys.argv[1:3]
is_udp = name == "udp"
kind = (socket.SOCK_DGRAM, 0) if is_udp else (socket.SOCK_RAW, int(name))
end = socket.socket(socket.AF_INET, *kind)


def payload(packet):
    return packet if is_udp else packet[(packet[0] & 15) * 4 :]


if what == "echo":
    if is_udp:
        end.bind(("", 443))
    print("listening", flush=True)
    while True:
        packet, sender = end.recvfrom(65535)
        body = payload(packet)
        if body[:1] == b"?":
            end.sendto(b"!" + body[1:], sender)

address, count, length = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
end.settimeout(2)
same = 0
for _ in range(count):
    body = os.urandom(length)
    end.sendto(b"?" + body, (address, 443 if is_udp else 0))
    try:
        while payload(end.recvfrom(65535)[0]) != b"!" + body:
            pass
        same += 1
    except TimeoutError:
        pass
print(same)
