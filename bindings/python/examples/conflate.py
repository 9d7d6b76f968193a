#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A subscriber that was away while many prices of a few instruments came.

It cares only for the newest of each: the instrument is the key.
"""

import shmbroker

INSTRUMENTS, PRICES = 4, 100


class Price(shmbroker.Record, name="example.price"):
    instrument: shmbroker.u32
    number: shmbroker.u32  # counts the prices of this instrument
    price: shmbroker.f64


def main():
    with shmbroker.connect() as client:
        channel = client.channel("example/conflate", Price)
        with channel.subscriber(conflate="instrument") as subscriber:
            publisher = channel.publisher()
            for i in range(PRICES):
                number, instrument = divmod(i, INSTRUMENTS)
                publisher.send(Price(instrument=instrument, number=number, price=100 + i * 0.25))
            while price := subscriber.try_recv():
                print(f"instrument {price.instrument}, number {price.number}, at {price.price:.2f}")
            print(f"{subscriber.stats().conflated} older ones were skipped")


if __name__ == "__main__":
    main()
