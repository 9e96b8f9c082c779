"""An inspection appliance made for a gateway load balancer, as far as the tunnel goes: takes GENEVE
from any source port, and sends each packet back with addresses swapped, ports kept, TTL 2 and no
checksum. Reads the header by RFC 8926 alone and shares no code with the agent.

    gateway-appliance.py ADDRESS identical            every option as it came, known or not
    gateway-appliance.py ADDRESS reversed             the options in the other order, and one more where there is room

Answers its health check at http://ADDRESS:8080/health until its standard input ends.
"""

import http.server
import socket
import struct
import sys
import threading

PORT = 6081
MTU = 1500
# A class and type that nobody has: not critical, so whoever does not know it passes over it.
UNKNOWN = struct.pack("!HBB", 0xFF00, 0x01, 1) + b"\xca\xfe\xba\xbe"


def options_of(header):
    """The options of a GENEVE header, each with its own header."""
    found = []
    at = 8
    while at < len(header):
        length = 4 + 4 * (header[at + 3] & 0x1F)
        found.append(header[at : at + length])
        at += length
    return found


def answer(payload, style):
    if style == "identical":
        return payload
    length = 8 + 4 * (payload[0] & 0x3F)
    options = list(reversed(options_of(payload[:length])))
    if 28 + len(payload) + len(UNKNOWN) <= MTU:
        options.append(UNKNOWN)
    words = sum(len(option) for option in options) // 4
    head = bytes([(payload[0] & 0xC0) | words]) + payload[1:8]
    return head + b"".join(options) + payload[length:]


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *words):
        pass


def main():
    address, style = sys.argv[1], sys.argv[2]
    server = http.server.ThreadingHTTPServer((address, 8080), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Only so that the kernel does not say that nobody is at the port.
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind((address, PORT))
    taken = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    given = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print("ready", flush=True)
    while True:
        packet = taken.recv(65535)
        at = 4 * (packet[0] & 0x0F)
        source_port, port, length = struct.unpack_from("!HHH", packet, at)
        if port != PORT or packet[16:20] != socket.inet_aton(address):
            continue
        payload = answer(packet[at + 8 : at + length], style)
        ip = struct.pack("!BBHHHBBH", 0x45, packet[1], 0, 0, 0, 2, 17, 0)
        ip += packet[16:20] + packet[12:16]
        udp = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0)
        given.sendto(ip + udp + payload, (socket.inet_ntoa(packet[12:16]), 0))


main()
