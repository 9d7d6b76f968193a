// SPDX-License-Identifier: Apache-2.0
//! Queues: jobs, credit, failure, dead letters, workers that go.

mod common;

use std::thread;

use common::{connect, start, tick, Tick, LONG, SHORT};
use shmbroker::{
    ErrorKind, Job, PublisherOptions, Queue, QueueOptions, QueuePublisher, QueueSubscriber, WaitSet,
    WorkerOptions,
};

#[test]
fn they_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<(Queue<Tick>, QueuePublisher<Tick>, QueueSubscriber<[u8]>)>();
    is_sync::<Queue<Tick>>();
}

#[test]
fn each_job_is_for_one_worker() {
    let (broker, client) = start();
    let queue = client.queue::<Tick>("queue").unwrap();
    let other = connect(&broker).queue::<Tick>("queue").unwrap();
    let workers: Vec<_> = [&queue, &other]
        .iter()
        .map(|queue| WorkerOptions::new().credit(8).open(queue).unwrap())
        .collect();
    queue.wait_for_subscribers(2, LONG).unwrap();
    let mut publisher = queue.publisher().unwrap();
    for number in 0..16 {
        publisher.send(&tick(number)).unwrap();
    }
    assert_eq!(publisher.send(&tick(16)).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(
        publisher.send_timeout(&tick(16), SHORT).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    assert!(!publisher.wait_done(SHORT).unwrap());
    let mut seen = Vec::new();
    for worker in &workers {
        let mut jobs = Vec::new();
        while let Some(job) = worker.take().unwrap() {
            seen.push(job.number);
            jobs.push(job);
        }
        assert_eq!(jobs.len(), 8);
        assert!(worker.take_timeout(SHORT).unwrap().is_none());
        assert!(!worker.wait(SHORT).unwrap());
        Job::done_all(jobs).unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..16).collect::<Vec<_>>());
    assert!(publisher.wait_done(LONG).unwrap());
    assert_eq!(publisher.stats().unwrap().published, 16);
    assert_eq!(workers[0].stats().unwrap().received, 8);
}

#[test]
fn what_fails_comes_again_and_is_buried_at_last() {
    let (_broker, client) = start();
    let queue = client.queue_bytes("queue").unwrap();
    let undertaker = client.queue_bytes("queue/dead").unwrap().subscriber().unwrap();
    let worker = WorkerOptions::new().max_attempts(3).open(&queue).unwrap();
    let mut publisher = queue.publisher().unwrap();
    publisher.send(b"bad").unwrap();
    let job = worker.take().unwrap().unwrap();
    assert_eq!((&job[..], job.attempt()), (&b"bad"[..], 1));
    assert!(format!("{:?}", job).contains("attempt: 1"));
    job.fail().unwrap();
    // Nobody has said that it is done.
    drop(worker.take().unwrap().unwrap());
    let job = worker.take().unwrap().unwrap();
    assert_eq!((job.attempt(), job.received().sequence), (3, 0));
    job.fail().unwrap();
    assert!(worker.take().unwrap().is_none());
    let letter = undertaker.take_timeout(LONG).unwrap().unwrap();
    assert_eq!(*letter, b"bad");
    letter.done().unwrap();
    assert!(publisher.wait_done(LONG).unwrap());
}

#[test]
fn what_a_worker_leaves_others_get() {
    let (broker, client) = start();
    let queue = client.queue::<Tick>("queue").unwrap();
    let leaver = connect(&broker).queue::<Tick>("queue").unwrap().subscriber().unwrap();
    let mut publisher = queue.publisher().unwrap();
    for number in 0..4 {
        publisher.send(&tick(number)).unwrap();
    }
    let first = leaver.take().unwrap().unwrap();
    leaver.take().unwrap().unwrap().done().unwrap();
    let worker = queue.subscriber().unwrap();
    std::mem::forget(first);
    drop(leaver);
    let mut seen = Vec::new();
    while !publisher.wait_done(SHORT).unwrap() {
        while let Some(job) = worker.take().unwrap() {
            seen.push((job.number, job.attempt()));
            job.done().unwrap();
        }
    }
    assert_eq!(seen, [(0, 2), (2, 1), (3, 1)]);
}

#[test]
fn options_are_heard() {
    let (_broker, client) = start();
    let queue = QueueOptions::new()
        .exclusive(true)
        .lane_len(1 << 16)
        .max_publishers(2)
        .max_subscribers(3)
        .open_bytes(&client, "queue")
        .unwrap();
    let info = queue.info().unwrap();
    assert_eq!((info.lane_len, info.max_publishers, info.max_subscribers), (1 << 16, 2, 3));
    assert_eq!(info.record_len_max, (1 << 13) - 24);
    assert!(queue.schema().unwrap().is_none());
    assert_eq!(
        WorkerOptions::new().credit(65).open(&queue).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert!(client.channel_bytes("queue").is_err());
    let mut dropping = queue.publisher_with(&PublisherOptions::new().drop_newest(true)).unwrap();
    dropping.send(b"for nobody").unwrap();
    assert_eq!(dropping.stats().unwrap().dropped, 1);
}

#[test]
fn a_wait_set_waits_for_work() {
    let (_broker, client) = start();
    let queue = client.queue::<Tick>("queue").unwrap();
    let worker = queue.subscriber().unwrap();
    let mut waitset = WaitSet::open(&client).unwrap();
    waitset.add(worker.as_subscriber(), 7).unwrap();
    let mut publisher = queue.publisher().unwrap();
    let sender = thread::spawn(move || {
        for number in 0..100 {
            publisher.send_timeout(&tick(number), LONG).unwrap();
        }
        assert!(publisher.wait_done(LONG).unwrap());
    });
    let mut next = 0;
    while next < 100 {
        assert!(!waitset.wait(LONG).unwrap().is_empty());
        while let Some(job) = worker.take().unwrap() {
            assert_eq!(job.number, next);
            job.done().unwrap();
            next += 1;
        }
    }
    sender.join().unwrap();
}
