"""A reader of lanes written from shmbroker-layout(5) alone: plain files, struct and os.pread.

It starts the helper (a broker, a publisher and a reliable subscriber), finds the channel in the
registry, follows the publisher's lane as an inspector does, and checks every record. The publisher
laps it on purpose: what was received and what was lost must add up to what was published.
"""

import os
import struct
import subprocess
import sys
import tempfile
import time

BLOCK = 4096
ALL_ONES = (1 << 64) - 1
EXT, MORE, PAD, VALID = 1 << 28, 1 << 29, 1 << 30, 1 << 31


class Corrupt(Exception):
    pass


class Segment:
    """A file in /dev/shm whose header is as it should be."""

    def __init__(self, name, kind, length, instance, segment_id):
        assert name.startswith("/shmb.") and "/" not in name[1:], name
        self.fd = os.open("/dev/shm" + name, os.O_RDONLY | os.O_CLOEXEC)
        info = os.fstat(self.fd)
        assert length is None or info.st_size == length, (info.st_size, length)
        assert info.st_mode & 0o777 == 0o600, oct(info.st_mode)
        self.size = info.st_size
        magic, order, version, has_kind, block, size, has_instance, has_id, owner = struct.unpack(
            "<8sIIIIQQQQ", self.read(0, 56))
        assert magic == b"SHMBSEG1" and order == 0x01020304 and version == 1
        assert has_kind == kind and block == BLOCK and has_instance == instance
        assert has_id == segment_id and owner == segment_id
        assert kind == 1 or size == length

    def read(self, offset, length):
        return os.pread(self.fd, length, offset)

    def word(self, offset, size=8):
        """One word in one piece: read(2) promises that only if two reads agree."""
        last = None
        while True:
            value = self.read(offset, size)
            if value == last:
                return int.from_bytes(value, "little")
            last = value

    def u32(self, offset):
        return self.word(offset, 4)

    def close(self):
        os.close(self.fd)


def find_registry(directory):
    with open(os.path.join(directory, "broker.lock"), "rb") as file:
        text = file.read()
    assert len(text) == 17 and text.endswith(b"\n"), text
    instance = int(text, 16)
    return Segment(f"/shmb.{instance:016x}.registry", 1, None, instance, 0), instance


def entries(registry):
    assert registry.u32(156) == 512
    size = os.fstat(registry.fd).st_size
    for index in range((size - BLOCK) // 512):
        at = BLOCK + 512 * index
        while registry.u32(at) == 1:
            entry = registry.read(at, 512)
            if registry.u32(at) == 1 and registry.word(at + 8) == struct.unpack_from("<Q", entry, 8)[0]:
                yield parse(entry)
                break


def parse(entry):
    names = ("state kind id channel_id client_id publisher_id subscriber_id segment_len process_start"
             " process_inode created_ns pid uid gid flags slot pattern lane_len max_publishers"
             " max_subscribers schema_len name_len history").split()
    values = dict(zip(names, struct.unpack_from("<II9Q12I", entry)))
    values["segment"] = entry[160:224].split(b"\0")[0].decode()
    values["name"] = entry[224:224 + values["name_len"]].decode()
    return values


class Lane:
    """The lossy reader of the page."""

    def __init__(self, segment, lane_len):
        self.segment = segment
        self.len = lane_len
        self.position = segment.word(128)
        self.sequence = None  # known with the first record
        self.hint = segment.word(136)
        self.lost = 0
        self.pads = 0
        self.laps = 0
        self.len_max = min(lane_len // 2 - 16, 0x0fffffff)

    def lapped(self, position):
        return self.segment.word(256) > position + self.len

    def look(self):
        """The next record as (type, payload), or None; raises Corrupt. Not yet checked for laps."""
        position, pads = self.position, 0
        while True:
            offset = position & (self.len - 1)
            header = self.segment.word(BLOCK + offset)
            if not header & VALID:
                return None
            length = header & 0x0fffffff
            span = (length + 8 + 7) & ~7
            if span > self.len - offset:
                raise Corrupt("too long")
            if not header & PAD:
                break
            if span != self.len - offset or pads:
                raise Corrupt("pad")
            pads += 1
            position += span
        seq = header >> 48
        sequence = self.sequence
        if sequence is None:
            # The number nearest to the hint whose low 16 bits are these.
            delta = (seq - self.hint) & 0xffff
            sequence = self.hint + (delta if delta < 0x8000 else delta - 0x10000)
        if length > self.len_max or seq != sequence & 0xffff or header & (EXT | MORE):
            raise Corrupt("header")
        payload = self.segment.read(BLOCK + offset + 8, length)
        return position + span, sequence, pads, header >> 32 & 0xffff, payload

    def next(self):
        """(sequence, type, payload) or None."""
        while True:
            try:
                record = self.look()
                error = None
            except Corrupt as caught:
                record, error = None, caught
            if not self.lapped(self.position):
                if error:
                    raise error
                if record is None:
                    return None
                self.position, sequence, pads, kind, payload = record
                self.sequence = sequence + 1
                self.pads += pads
                return sequence, kind, payload
            if not self.resync():
                return None

    def resync(self):
        self.laps += 1
        intent = self.segment.word(256)
        found = []
        for i in range(16):
            at = self.segment.word(512 + 16 * i)
            sequence = self.segment.word(520 + 16 * i)
            if at != self.segment.word(512 + 16 * i) or at == ALL_ONES or at % 8:
                continue
            if at <= self.position or at > intent or sequence < (self.sequence or 0):
                continue
            found.append((at, sequence))
        if not found:
            return False
        roomy = [mark for mark in found if intent - mark[0] <= self.len * 3 // 4]
        position, sequence = min(roomy) if roomy else max(found)
        if self.sequence is not None:
            self.lost += sequence - self.sequence
        self.position, self.sequence = position, sequence
        return True


def check_payload(sequence, kind, payload):
    number, = struct.unpack_from("<Q", payload)
    assert number == sequence, (number, sequence)
    assert kind == sequence & 0xfff, (kind, sequence)
    assert len(payload) == 8 + sequence * 37 % 3001, (len(payload), sequence)
    assert payload[8:] == bytes([sequence & 0xff]) * (len(payload) - 8)


def start_late(lane):
    """Another reader, in the middle of the stream: it finds out which numbers it reads."""
    late = Lane(lane.segment, lane.len)
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline:
        record = late.next()
        if record is not None and record[1] != 0xffff:
            check_payload(*record)


def follow(lane, helper):
    first = None
    received = 0
    while True:
        record = lane.next()
        if record is None:
            assert helper.poll() is None, "the helper ended"
            time.sleep(0.0002)
            continue
        sequence, kind, payload = record
        if first is None:
            first = sequence
        if kind == 0xffff:
            total, = struct.unpack("<Q", payload)
            return first, received, total, sequence
        check_payload(sequence, kind, payload)
        received += 1
        if received % 1000 == 0:
            start_late(lane)
            time.sleep(0.02)  # fall behind


def check_members(registry, instance, channel, publisher, lane_segment):
    subscriber = [e for e in entries(registry) if e["kind"] == 4]
    pair = [e for e in entries(registry) if e["kind"] == 5]
    client = [e for e in entries(registry) if e["kind"] == 1]
    assert len(subscriber) == len(pair) == 1 and len(client) == 1
    subscriber, pair, client = subscriber[0], pair[0], client[0]
    assert pair["publisher_id"] == publisher["id"] and pair["subscriber_id"] == subscriber["id"]
    assert subscriber["client_id"] == publisher["client_id"] == client["id"]
    assert subscriber["flags"] == 2 and publisher["flags"] == 2
    cursor = Segment(subscriber["segment"], 4, BLOCK + 64 * channel["max_publishers"], instance,
                     subscriber["id"])
    bell = Segment(pair["segment"], 5, BLOCK, instance, pair["id"])
    slot = BLOCK + 64 * publisher["slot"]
    assert cursor.word(slot + 24) == pair["id"]
    assert bell.u32(256) == 1 and bell.word(264) == 0 and bell.word(272) == 0
    # The publisher has stopped: a reliable reader ends where it ended, and has lost nothing.
    deadline = time.monotonic() + 10
    while cursor.word(slot) != lane_segment.word(128) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert cursor.word(slot) == lane_segment.word(128)
    assert cursor.word(slot + 8) == lane_segment.word(136)
    assert cursor.word(slot + 16) == 0


def check_channel(channel, instance):
    segment = Segment(channel["segment"], 2, channel["segment_len"], instance, channel["id"])
    assert segment.word(128) > 0 and segment.word(256) == channel["id"]
    assert segment.u32(264) == 1 and segment.u32(268) == channel["lane_len"]
    assert segment.u32(272) == channel["max_publishers"]
    assert segment.u32(276) == channel["max_subscribers"]
    assert segment.u32(296) == channel["history"] == 7
    assert segment.u32(280) == 0 and segment.u32(288) == 1 and segment.u32(292) == 1
    name = segment.read(384, segment.u32(284))
    assert name.decode() == channel["name"] == "stranger/numbers"


def main():
    with tempfile.TemporaryDirectory(prefix="shmb-stranger.") as directory:
        helper = subprocess.Popen([sys.argv[1], directory + "/run"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        try:
            run(helper, directory + "/run")
        finally:
            helper.stdin.close()
            status = helper.wait(10)
    assert status == 0, status


def run(helper, directory):
    assert helper.stdout.readline() == b"ready\n"
    registry, instance = find_registry(directory)
    address = registry.read(168, registry.u32(160)).decode()
    assert address == directory + "/control.sock", address
    assert registry.u32(152) == helper.pid and registry.word(128) == 1
    channel, = [e for e in entries(registry) if e["kind"] == 2]
    publisher, = [e for e in entries(registry) if e["kind"] == 3]
    assert publisher["channel_id"] == channel["id"] and publisher["flags"] & 2
    check_channel(channel, instance)
    segment = Segment(publisher["segment"], 3, BLOCK + channel["lane_len"], instance,
                      publisher["id"])
    lane = Lane(segment, channel["lane_len"])
    helper.stdin.write(b"go\n")
    helper.stdin.flush()
    first, received, total, last = follow(lane, helper)
    assert last == total, (last, total)
    assert first + received + lane.lost == total, (first, received, lane.lost, total)
    assert lane.pads > 0, "no pad was met"
    assert segment.word(144) == 0
    # Full now and then, as its subscriber reads by turns, but not at the end.
    assert (segment.word(160) == 0) == (segment.word(176) == 0) and segment.word(176) < total
    check_members(registry, instance, channel, publisher, segment)
    print(f"{total} records: from {first} on {received} received, {lane.lost} lost in {lane.laps} laps,"
          f" {lane.pads} pads")


if __name__ == "__main__":
    main()
