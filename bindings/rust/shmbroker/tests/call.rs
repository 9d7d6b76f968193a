// SPDX-License-Identifier: Apache-2.0
//! Call channels: replies, streams, failures, deadlines, cancelling, servers that go.

mod common;

use std::thread;
use std::time::Duration;

use common::{connect, start, LONG, SHORT};
use shmbroker::{
    call, record, Caller, CallerOptions, Calls, CallsOptions, ErrorKind, Pad, Server, ServerOptions,
    WaitSet,
};

#[test]
fn they_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<(Calls, Caller, Server)>();
    is_sync::<Calls>();
}

#[test]
fn a_call_is_answered() {
    let (broker, client) = start();
    let server = connect(&broker).calls("c").unwrap().server().unwrap();
    let thread = thread::spawn(move || {
        for _ in 0..1000 {
            let mut request = server.recv(LONG).unwrap().unwrap();
            request.data.reverse();
            server.reply(request.call, request.kind, &request.data, LONG).unwrap();
        }
        server.stats().unwrap()
    });
    let calls = client.calls("c").unwrap();
    calls.wait_for_servers(1, LONG).unwrap();
    let caller = calls.caller().unwrap();
    for i in 0..1000u32 {
        let mut expected = i.to_ne_bytes();
        expected.reverse();
        assert_eq!(caller.call(i % 4096, &i.to_ne_bytes(), LONG).unwrap(), expected);
    }
    let stats = thread.join().unwrap();
    assert_eq!((stats.requests, stats.replies, stats.open), (1000, 1000, 0));
    let stats = caller.stats().unwrap();
    assert_eq!((stats.calls, stats.replies, stats.open), (1000, 1000, 0));
}

#[test]
fn who_asks_is_told() {
    let (_broker, client) = start();
    let calls = client.calls("c").unwrap();
    let server = ServerOptions::new().trusting(true).open(&calls).unwrap();
    let caller = CallerOptions::new().trusting(true).spin(SHORT).open(&calls).unwrap();
    let call = caller.start(7, b"x", LONG).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    assert_eq!((request.kind, &request.data[..]), (7, &b"x"[..]));
    assert_eq!(request.pid, std::process::id());
    assert!(request.deadline.is_some());
    assert!(!server.is_cancelled(request.call).unwrap());
    server.reply(request.call, 9, b"", LONG).unwrap();
    let error = server.reply(request.call, 9, b"", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let reply = caller.recv(call, LONG).unwrap();
    assert_eq!((reply.call, reply.kind, reply.data, reply.more), (call, 9, Some(vec![]), false));
    assert_eq!(caller.recv(call, LONG).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(caller.recv_any(LONG).unwrap_err().kind(), ErrorKind::NotFound);
    caller.start(7, b"y", None).unwrap();
    assert_eq!(server.recv(LONG).unwrap().unwrap().deadline, None);
    assert_eq!(calls.info().unwrap().publishers, 1);
    assert_eq!(calls.info().unwrap().subscribers, 1);
}

#[test]
fn long_ones() {
    let (_broker, client) = start();
    let calls = CallsOptions::new().lane_len(1 << 20).open(&client, "c").unwrap();
    let server = calls.server().unwrap();
    let caller = calls.caller().unwrap();
    let call = caller.start(0, &[1; 300000], LONG).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    assert_eq!(request.data, [1; 300000]);
    server.reply(request.call, 0, &[2; 400000], LONG).unwrap();
    assert_eq!(caller.recv(call, LONG).unwrap().data.unwrap(), [2; 400000]);
    let error = caller.start(0, &[0; 1 << 20], LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageSize);
}

#[test]
fn replies_can_be_many_or_none() {
    let (_broker, client) = start();
    let calls = CallsOptions::new().lane_len(4096).open(&client, "c").unwrap();
    let server = calls.server().unwrap();
    let thread = thread::spawn(move || {
        while let Some(request) = server.recv(LONG).unwrap() {
            for i in 0..request.kind {
                server.send(request.call, 0, &i.to_ne_bytes(), LONG).unwrap();
            }
            if request.data == b"stop" {
                return server.reply(request.call, 0, b"", LONG).unwrap();
            }
            server.end(request.call, LONG).unwrap();
        }
    });
    let caller = calls.caller().unwrap();
    let replies: Vec<_> = caller.stream(1000, b"", LONG).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(replies.len(), 1000);
    assert_eq!(replies[999], 999u32.to_ne_bytes());
    assert_eq!(caller.stream(0, b"", LONG).unwrap().count(), 0);
    // Left in the middle, it is cancelled.
    assert_eq!(caller.stream(3, b"", LONG).unwrap().next().unwrap().unwrap(), [0; 4]);
    assert_eq!(caller.stats().unwrap().open, 0);
    assert!(caller.call(2, b"", LONG).unwrap_err().to_string().contains("more than once"));
    assert!(caller.call(0, b"", LONG).unwrap_err().to_string().contains("ended"));
    assert_eq!(caller.call(0, b"stop", LONG).unwrap(), b"");
    thread.join().unwrap();
}

#[test]
fn failures() {
    let (_broker, client) = start();
    let calls = client.calls("c").unwrap();
    let server = calls.server().unwrap();
    let caller = calls.caller().unwrap();
    let call = caller.start(0, b"", LONG).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    server.fail(request.call, -7, "not today", LONG).unwrap();
    let error = caller.recv(call, LONG).unwrap_err();
    assert_eq!((error.kind(), caller.code()), (ErrorKind::Remote, -7));
    assert!(error.to_string().contains("not today"), "{}", error);
    assert_eq!(caller.last(), call);
}

#[test]
fn time_and_cancelling() {
    let (_broker, client) = start();
    let calls = client.calls("c").unwrap();
    let caller = calls.caller().unwrap();
    let fast = CallerOptions::new().fail_fast(true).open(&calls);
    let error = fast.unwrap().call(0, b"", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoServer);
    assert_eq!(caller.call(0, b"", SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    let server = calls.server().unwrap();
    assert_eq!(server.recv(Duration::ZERO).unwrap(), None);
    let call = caller.start(0, b"", LONG).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    assert_eq!(caller.recv(call, SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(caller.cancel(call).unwrap());
    assert!(!caller.cancel(call).unwrap());
    assert!(server.is_cancelled(request.call).unwrap());
    let error = server.reply(request.call, 0, b"", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_side_that_goes() {
    let (_broker, client) = start();
    let calls = client.calls("c").unwrap();
    let server = calls.server().unwrap();
    let caller = calls.caller().unwrap();
    let call = caller.start(0, b"", None).unwrap();
    server.recv(LONG).unwrap().unwrap();
    drop(server);
    assert_eq!(caller.recv(call, LONG).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let server = calls.server().unwrap();
    caller.start(0, b"", None).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    drop(caller);
    while !server.is_cancelled(request.call).unwrap() {
        thread::sleep(Duration::from_millis(1));
    }
    let error = server.reply(request.call, 0, b"", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn other_patterns_are_refused() {
    let (_broker, client) = start();
    let _calls = client.calls("c").unwrap();
    assert_eq!(client.channel_bytes("c").unwrap_err().kind(), ErrorKind::SchemaMismatch);
    let _bytes = client.channel_bytes("bytes").unwrap();
    assert_eq!(client.calls("bytes").unwrap_err().kind(), ErrorKind::SchemaMismatch);
}

record! {
    #[derive(Debug, PartialEq)]
    pub struct Query: "test.query" { pub id: u32 }
}

record! {
    #[derive(Debug, PartialEq)]
    pub struct Quote: "test.quote" { pub price: f64, pub count: u32, pub flags: u32 }
}

record! {
    pub struct OtherQuote: "test.quote" { pub price: f64, pub count: i32, pub pad0: Pad<4> }
}

call! { pub struct Lookup: "test.lookup" { request: Query, reply: Quote } }
call! { pub struct OtherLookup: "test.lookup" { request: Query, reply: OtherQuote } }

#[test]
fn types_are_checked() {
    let (broker, client) = start();
    let calls = client.typed_calls::<Lookup>("c").unwrap();
    let info = calls.info().unwrap();
    assert_eq!((info.request_len, info.reply_len), (4, 16));
    let error = client.typed_calls::<OtherLookup>("c").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    assert!(error.to_string().contains("reply.count"), "{}", error);
    assert_eq!(client.calls("c").unwrap_err().kind(), ErrorKind::SchemaMismatch);
    let server = connect(&broker).typed_calls::<Lookup>("c").unwrap().server().unwrap();
    let thread = thread::spawn(move || {
        let request = server.recv(LONG).unwrap().unwrap();
        assert_eq!(request.data, Query { id: 7 });
        let quote = Quote { price: 1.5, count: 2, flags: 3 };
        server.send(request.call, 0, &quote, LONG).unwrap();
        server.fail(request.call, 1, "no more", LONG).unwrap();
        let request = server.recv(LONG).unwrap().unwrap();
        server.reply(request.call, 0, &quote, LONG).unwrap();
    });
    let caller = calls.caller().unwrap();
    let mut replies = caller.stream(0, &Query { id: 7 }, LONG).unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), Quote { price: 1.5, count: 2, flags: 3 });
    assert_eq!(replies.next().unwrap().unwrap_err().kind(), ErrorKind::Remote);
    assert_eq!(caller.call(0, &Query { id: 8 }, LONG).unwrap().count, 2);
    thread.join().unwrap();
}

#[test]
fn they_are_waited_for() {
    let (_broker, client) = start();
    let calls = client.calls("c").unwrap();
    let (server, caller) = (calls.server().unwrap(), calls.caller().unwrap());
    let mut set = WaitSet::open(&client).unwrap();
    set.add_server(&server, 1).unwrap();
    set.add_caller(&caller, 2).unwrap();
    let mut done = 0;
    caller.start(0, b"x", LONG).unwrap();
    while done < 100 {
        for ready in set.wait(LONG).unwrap().to_vec() {
            if ready.is_server() {
                assert_eq!(ready.cookie(), 1);
                while let Some(request) = server.recv(Duration::ZERO).unwrap() {
                    server.reply(request.call, 0, &request.data, LONG).unwrap();
                }
            } else if caller.recv_any(Duration::ZERO).is_ok() {
                assert!(ready.is_caller() && ready.cookie() == 2);
                caller.start(0, b"x", LONG).unwrap();
                done += 1;
            }
        }
    }
    set.remove_server(&server).unwrap();
    set.remove_caller(&caller).unwrap();
    assert_eq!(set.remove_caller(&caller).unwrap_err().kind(), ErrorKind::NotFound);
}
