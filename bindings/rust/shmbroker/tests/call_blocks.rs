// SPDX-License-Identifier: Apache-2.0
//! Requests and replies of any length, lent and held.

mod common;

use common::{start, LONG};
use shmbroker::{call, record, Caller, CallsOptions, Client, ErrorKind, HeldMessage, Server};

const LEN: usize = 1 << 20;

record! {
    pub struct Vector: "test.vector" { pub id: u64, pub values: [u64; 1024] }
}
call! { pub struct Twice: "test.twice" { request: Vector, reply: Vector } }

fn options() -> CallsOptions {
    CallsOptions::new().record_len_max(LEN as u32).inline_len_max(2000).max_holds(2)
}

fn ends(client: &Client) -> (Caller, Server) {
    let calls = options().open(client, "c").unwrap();
    (calls.caller().unwrap(), calls.server().unwrap())
}

fn byte(held: &HeldMessage<'_, [u8]>, at: usize) -> u8 {
    assert!(at < held.len());
    // SAFETY: inside of what is held.
    unsafe { held.as_ptr().add(at).read_volatile() }
}

#[test]
fn every_length_is_copied() {
    let (_broker, client) = start();
    let (caller, server) = ends(&client);
    for len in [0, 1, 2000, 2001, 65536, LEN] {
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let call = caller.start(0, &data, LONG).unwrap();
        let mut request = server.recv(LONG).unwrap().unwrap();
        assert!(request.data == data);
        request.data.reverse();
        server.reply(request.call, 0, &request.data, LONG).unwrap();
        assert!(caller.recv(call, LONG).unwrap().data.unwrap() == request.data);
    }
    let error = caller.start(0, &vec![0; LEN + 1], LONG).unwrap_err();
    assert!(error.to_string().contains("record_len_max"), "{}", error);
}

#[test]
fn nothing_is_copied() {
    let (_broker, client) = start();
    let (caller, server) = ends(&client);
    for len in [100, LEN] {
        let mut loan = caller.loan(len, LONG).unwrap();
        assert_eq!(loan.len(), len);
        loan[0] = 1;
        loan[len - 1] = 2;
        let call = loan.start(7, LONG).unwrap();
        let request = server.recv_hold(LONG).unwrap().unwrap();
        assert_eq!((request.kind, request.data.len()), (7, len));
        assert_eq!((byte(&request.data, 0), byte(&request.data, len - 1)), (1, 2));
        let mut loan = server.loan(request.call, len, LONG).unwrap();
        loan[0] = 3;
        loan.send_len(len / 2, 9).unwrap();
        drop(server.loan(request.call, len, LONG).unwrap());
        server.loan(request.call, 8, LONG).unwrap().reply(10).unwrap();
        request.data.release().unwrap();
        let reply = caller.recv_hold(call, LONG).unwrap();
        assert_eq!((reply.call, reply.kind, reply.more), (call, 9, true));
        let data = reply.data.unwrap();
        assert_eq!((data.len(), byte(&data, 0)), (len / 2, 3));
        let reply = caller.recv_any_hold(LONG).unwrap();
        assert_eq!((reply.kind, reply.more, reply.data.unwrap().to_vec().len()), (10, false, 8));
    }
}

#[test]
fn types_are_lent_and_held() {
    let (_broker, client) = start();
    let calls = options().open_typed::<Twice>(&client, "c").unwrap();
    let (caller, server) = (calls.caller().unwrap(), calls.server().unwrap());
    let mut loan = caller.loan(None, LONG).unwrap();
    loan.id = 5;
    let call = loan.start(0, LONG).unwrap();
    let request = server.recv_hold(LONG).unwrap().unwrap();
    assert_eq!(request.data.read().id, 5);
    assert_eq!(
        server.loan(request.call, 8, LONG).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut loan = server.loan(request.call, None, LONG).unwrap();
    loan.id = 6;
    loan.reply(0).unwrap();
    assert_eq!(caller.recv(call, LONG).unwrap().data.unwrap().id, 6);
}

#[test]
fn what_is_held_stays() {
    let (_broker, client) = start();
    let (caller, server) = ends(&client);
    let mut held = Vec::new();
    for i in 0..2 {
        caller.start(0, &vec![i; LEN], LONG).unwrap();
        held.push(server.recv_hold(LONG).unwrap().unwrap().data);
    }
    for i in 2..20 {
        let call = caller.start(0, &vec![i; LEN], LONG).unwrap();
        let request = server.recv(LONG).unwrap().unwrap();
        server.reply(request.call, 0, &request.data, LONG).unwrap();
        assert_eq!(caller.recv(call, LONG).unwrap().data.unwrap()[LEN - 1], i);
    }
    assert_eq!(server.recv_hold(LONG).unwrap_err().kind(), ErrorKind::Quota);
    for (i, held) in held.iter().enumerate() {
        assert_eq!((byte(held, 0), byte(held, LEN - 1)), (i as u8, i as u8));
    }
}

#[test]
fn one_loan_at_a_time() {
    let (_broker, client) = start();
    let (caller, server) = ends(&client);
    let loan = caller.loan(16, LONG).unwrap();
    assert_eq!(caller.loan(16, LONG).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(caller.start(0, b"x", LONG).unwrap_err().kind(), ErrorKind::Busy);
    drop(loan);
    caller.start(0, b"x", LONG).unwrap();
    let request = server.recv(LONG).unwrap().unwrap();
    let loan = server.loan(request.call, LEN, LONG).unwrap();
    drop(caller);
    while !server.is_cancelled(request.call).unwrap() {
        std::thread::yield_now();
    }
    assert_eq!(loan.reply(0).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(server.loan(request.call, None, LONG).is_err());
}
