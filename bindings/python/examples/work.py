#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Factors the numbers that submit (of any language) sends. What it has not done when it is killed
other workers get."""

import shmbroker


class Task(shmbroker.Record, name="example.task"):
    number: shmbroker.u64


def factors(number):
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor:
            divisor += 1
        else:
            yield divisor
            number //= divisor
    yield number


def main():
    with shmbroker.connect() as client:
        with client.queue("example/numbers", Task) as queue, queue.subscriber() as worker:
            for job in worker:
                with job as task:  # done at the end; failed on an exception
                    product = " * ".join(str(factor) for factor in factors(task.number))
                    print(f"{task.number} = {product}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
