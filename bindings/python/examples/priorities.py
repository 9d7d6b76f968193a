#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two publishers of one channel: what the urgent one sends last is received first.

The other one's records have waited for longer.
"""

import shmbroker


class Price(shmbroker.Record, name="example.price"):
    instrument: shmbroker.u32
    number: shmbroker.u32  # counts the prices of this instrument
    price: shmbroker.f64


def main():
    with shmbroker.connect() as client:
        channel = client.channel("example/priorities", Price)
        with channel.subscriber() as subscriber:
            usual, urgent = channel.publisher(), channel.publisher(priority=7)
            # Whose they are the instrument says here.
            for i in range(4):
                usual.send(Price(instrument=0, number=i, price=100))
            for i in range(2):
                urgent.send(Price(instrument=7, number=i, price=100))
            while price := subscriber.try_recv():
                print(f"priority {price.instrument}, number {price.number}")


if __name__ == "__main__":
    main()
