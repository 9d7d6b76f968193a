// SPDX-License-Identifier: Apache-2.0
//! Work for one of many.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use shmbroker_sys as sys;

use crate::channel::{Backing, Channel, ChannelInfo, ChannelOptions, Content};
use crate::client::Client;
use crate::error::{check, check_unless, nanoseconds, Result, ETIMEDOUT};
use crate::publisher::{Publisher, PublisherOptions};
use crate::schema::Schema;
use crate::subscriber::{Received, Subscriber, SubscriberOptions, SubscriberStats};

/// How to open a queue. Sizes and limits count when it is created.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, QueueOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let jobs = QueueOptions::new().lane_len(16 << 20).open_bytes(&client, "build/jobs")?;
/// assert_eq!(jobs.info()?.lane_len, 16 << 20);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct QueueOptions {
    channel: ChannelOptions,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions::new()
    }
}

impl QueueOptions {
    /// The defaults: create it if there is none.
    pub fn new() -> QueueOptions {
        QueueOptions { channel: ChannelOptions::queue() }
    }

    /// Whether to create it if there is none; yes otherwise.
    pub fn create(mut self, yes: bool) -> QueueOptions {
        self.channel = self.channel.create(yes);
        self
    }

    /// Whether it must be new.
    pub fn exclusive(mut self, yes: bool) -> QueueOptions {
        self.channel = self.channel.exclusive(yes);
        self
    }

    /// Whether a queue of bytes may have any schema; [`Queue::schema`] tells it.
    pub fn any_schema(mut self, yes: bool) -> QueueOptions {
        self.channel = self.channel.any_schema(yes);
        self
    }

    /// Bytes of each publisher's ring: a power of two from 4 KiB to 2 GiB, 1 MiB otherwise. A
    /// record can have up to an eighth of it, less 24 bytes.
    pub fn lane_len(mut self, bytes: u32) -> QueueOptions {
        self.channel = self.channel.lane_len(bytes);
        self
    }

    /// At most so many publishers; 64 otherwise.
    pub fn max_publishers(mut self, count: u32) -> QueueOptions {
        self.channel = self.channel.max_publishers(count);
        self
    }

    /// At most so many workers; 64 otherwise.
    pub fn max_subscribers(mut self, count: u32) -> QueueOptions {
        self.channel = self.channel.max_subscribers(count);
        self
    }

    /// What lies behind its memory; rules of the broker may decide otherwise.
    pub fn backing(mut self, backing: Backing) -> QueueOptions {
        self.channel = self.channel.backing(backing);
        self
    }

    /// Opens the queue.
    pub fn open<T: Content + ?Sized>(&self, client: &Client, name: &str) -> Result<Queue<T>> {
        Ok(Queue { channel: self.channel.open(client, name)? })
    }

    /// Opens the queue for untyped records.
    pub fn open_bytes(&self, client: &Client, name: &str) -> Result<Queue<[u8]>> {
        self.open(client, name)
    }
}

/// A queue: each record is for one worker, and is kept until that has done it. Clones share it.
///
/// What a worker has not done when it goes others get, as the next attempt.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// # use std::time::Duration;
/// shmbroker::record! { pub struct Task: "doc.task" { pub number: u64 } }
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let queue = client.queue::<Task>("tasks")?;
/// let worker = queue.subscriber()?;
/// let mut publisher = queue.publisher()?;
/// publisher.send(&Task { number: 91 })?;
///
/// let job = worker.take()?.unwrap();
/// assert_eq!((job.number, job.attempt()), (91, 1));
/// job.done()?;
/// assert!(publisher.wait_done(Duration::from_secs(1))?);
/// # Ok(())
/// # }
/// ```
pub struct Queue<T: ?Sized> {
    channel: Channel<T>,
}

impl<T: ?Sized> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { channel: self.channel.clone() }
    }
}

impl<T: ?Sized> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("info", &self.info()).finish()
    }
}

impl<T: ?Sized> Queue<T> {
    /// What the channel is and who is there.
    pub fn info(&self) -> Result<ChannelInfo> {
        self.channel.info()
    }

    /// What its records are, `None` if they are untyped.
    pub fn schema(&self) -> Result<Option<Schema>> {
        self.channel.schema()
    }

    /// Waits until there are at least so many workers; `None` waits for ever.
    pub fn wait_for_subscribers(&self, n: u32, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.channel.wait_for_subscribers(n, timeout)
    }
}

impl<T: Content + ?Sized> Queue<T> {
    /// Starts to send.
    pub fn publisher(&self) -> Result<QueuePublisher<T>> {
        self.publisher_with(&PublisherOptions::new())
    }

    /// Starts to send, with options.
    pub fn publisher_with(&self, options: &PublisherOptions) -> Result<QueuePublisher<T>> {
        Ok(QueuePublisher { inner: options.open(&self.channel)? })
    }

    /// Starts to work, with a credit of 32 and no limit for attempts; see [`WorkerOptions`].
    pub fn subscriber(&self) -> Result<QueueSubscriber<T>> {
        WorkerOptions::new().open(self)
    }
}

/// Sends records, each to one worker: of those with credit to the one that has least to do.
///
/// It is a [`Publisher`], whose calls fail with
/// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) also while no worker has credit.
pub struct QueuePublisher<T: ?Sized> {
    inner: Publisher<T>,
}

impl<T: ?Sized> fmt::Debug for QueuePublisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePublisher").field("stats", &self.inner.stats()).finish()
    }
}

impl<T: ?Sized> Deref for QueuePublisher<T> {
    type Target = Publisher<T>;

    fn deref(&self) -> &Publisher<T> {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for QueuePublisher<T> {
    fn deref_mut(&mut self) -> &mut Publisher<T> {
        &mut self.inner
    }
}

impl<T: ?Sized> QueuePublisher<T> {
    /// Waits until all that was sent is done: `false` when the time is over. `None` waits for ever.
    ///
    /// What a worker has left that has gone is given to others with any call of the publisher. One
    /// that has an event loop looks at [`Publisher::fd`] there, and calls this with no time when it
    /// is readable.
    pub fn wait_done(&mut self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        let timeout_ns = nanoseconds(timeout.into());
        // SAFETY: open.
        let result =
            unsafe { sys::shmb_publisher_wait_done(self.inner.handle.as_ptr(), timeout_ns) };
        Ok(check_unless(result, ETIMEDOUT)?.is_some())
    }
}

/// How to work.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, WorkerOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let queue = client.queue_bytes("tasks")?;
/// let worker = WorkerOptions::new().credit(1).max_attempts(3).open(&queue)?;
/// # let _ = worker;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    subscriber: SubscriberOptions,
}

impl WorkerOptions {
    /// The defaults.
    pub fn new() -> WorkerOptions {
        WorkerOptions::default()
    }

    /// Of each publisher at most so many records that are not done, 1 to 64; 32 otherwise.
    pub fn credit(mut self, records: u32) -> WorkerOptions {
        self.subscriber.credit = records;
        self
    }

    /// A record that would be handed out more often than this goes to the queue of the dead
    /// letters, which is called NAME/dead; 0, as otherwise: there is no limit.
    pub fn max_attempts(mut self, attempts: u32) -> WorkerOptions {
        self.subscriber.max_attempts = attempts;
        self
    }

    /// How long a wait may poll before it sleeps, if records come faster than that.
    pub fn spin(mut self, time: Duration) -> WorkerOptions {
        self.subscriber = self.subscriber.spin(time);
        self
    }

    /// Starts to work.
    pub fn open<T: Content + ?Sized>(&self, queue: &Queue<T>) -> Result<QueueSubscriber<T>> {
        Ok(QueueSubscriber { inner: self.subscriber.open(&queue.channel)? })
    }
}

/// A worker: takes records of a queue. What it has not done when it is dropped others get.
///
/// It may move to another thread, and is used by one at a time. In a [`WaitSet`](crate::WaitSet)
/// it is ready when there is work: add [`QueueSubscriber::as_subscriber`].
pub struct QueueSubscriber<T: ?Sized> {
    inner: Subscriber<T>,
}

impl<T: ?Sized> fmt::Debug for QueueSubscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSubscriber").field("stats", &self.stats()).finish()
    }
}

impl<T: Content + ?Sized> QueueSubscriber<T> {
    fn job(&self, record: T::Owned) -> Job<'_, T> {
        let view = self.inner.view();
        Job {
            subscriber: self,
            record: Some(record),
            job: view.term,
            attempt: view.attempt,
            received: self.inner.last(),
        }
    }

    /// The next record that is for this worker, `None` if there is none now. It never waits.
    pub fn take(&self) -> Result<Option<Job<'_, T>>> {
        let record = T::receive(&self.inner, sys::shmb_subscriber_take)?;
        Ok(record.map(|record| self.job(record)))
    }

    /// The next record that is for this worker, and waits for it: `None` when the time is over,
    /// which without a timeout it never is.
    pub fn take_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<Option<Job<'_, T>>> {
        let record = self.inner.timeout_by(sys::shmb_subscriber_take, timeout.into())?;
        Ok(record.map(|record| self.job(record)))
    }
}

impl<T: ?Sized> QueueSubscriber<T> {
    /// Waits for work: `true` when there is some, `false` when the time is over. `None` waits for
    /// ever.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.inner.wait(timeout)
    }

    /// The counters.
    pub fn stats(&self) -> Result<SubscriberStats> {
        self.inner.stats()
    }

    /// As what it is in wait sets; it has nothing to receive.
    pub fn as_subscriber(&self) -> &Subscriber<T> {
        &self.inner
    }
}

/// A record that a worker has taken. It dereferences to the record.
///
/// Dropping it says that the work has failed, as an early return or a panic does.
pub struct Job<'s, T: Content + ?Sized> {
    subscriber: &'s QueueSubscriber<T>,
    /// `None`: it has ended.
    record: Option<T::Owned>,
    job: u64,
    attempt: u32,
    received: Received,
}

impl<T: Content + ?Sized> Job<'_, T> {
    /// How often the record has been handed to a worker, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where the record came from.
    pub fn received(&self) -> Received {
        self.received
    }

    /// The work is done: nobody is given the record again.
    pub fn done(mut self) -> Result<()> {
        self.record = None;
        // SAFETY: open.
        check(unsafe { sys::shmb_subscriber_done(self.subscriber.inner.handle.as_ptr(), self.job) })
            .map(drop)
    }

    /// The work on all of these is done. They may be of several workers.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, Job};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let queue = client.queue_bytes("tasks")?;
    /// let worker = queue.subscriber()?;
    /// queue.publisher()?.send_many(b"abc", &[1, 1, 1])?;
    /// let mut jobs = Vec::new();
    /// while let Some(job) = worker.take()? {
    ///     jobs.push(job);
    /// }
    /// assert_eq!(jobs.len(), 3);
    /// Job::done_all(jobs)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn done_all(jobs: impl IntoIterator<Item = Self>) -> Result<()> {
        jobs.into_iter().try_for_each(Job::done)
    }

    /// The work has failed: the worker gets the record again, after what it has not taken yet, as
    /// the next attempt.
    pub fn fail(mut self) -> Result<()> {
        self.record = None;
        self.end_failed()
    }

    fn end_failed(&self) -> Result<()> {
        // SAFETY: open.
        check(unsafe { sys::shmb_subscriber_fail(self.subscriber.inner.handle.as_ptr(), self.job) })
            .map(drop)
    }
}

impl<T: Content + ?Sized> Deref for Job<'_, T> {
    type Target = T::Owned;

    fn deref(&self) -> &T::Owned {
        self.record.as_ref().expect("it is there until the job ends")
    }
}

impl<T: Content + ?Sized> Drop for Job<'_, T> {
    fn drop(&mut self) {
        if self.record.is_some() {
            // Whoever was thrown out meanwhile has no say any more.
            let _ = self.end_failed();
        }
    }
}

impl<T: Content + ?Sized> fmt::Debug for Job<'_, T>
where
    T::Owned: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("record", &self.record)
            .field("attempt", &self.attempt)
            .finish()
    }
}
