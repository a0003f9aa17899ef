//! Connections to a broker that is well are cut between its writing of records and its answer: the client
//! cannot know, sends them again, and each is there once.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::*;

/// Bytes of a connection after which its answers are kept back.
const MUCH: usize = 20_000;

/// Connections that are cut.
const CUTS: usize = 5;

/// Passes connections on, and cuts the first that carry much when the broker answers.
struct Relay {
    listener: TcpListener,
    port: u16,
    cut: Arc<AtomicUsize>,
}

impl Relay {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port, cut: Arc::default() }
    }

    /// Begins to pass on, to this port, until the process ends.
    fn lead_to(self, port: u16) -> Arc<AtomicUsize> {
        let Self { listener, cut, .. } = self;
        let count = Arc::clone(&cut);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                pass(&near, &far, &cut);
            }
        });
        count
    }
}

fn pass(near: &TcpStream, far: &TcpStream, cut: &Arc<AtomicUsize>) {
    let is_mute = Arc::new(AtomicBool::new(false));
    let ends = || [near.try_clone().unwrap(), far.try_clone().unwrap()];
    let ([mut from, mut to], mute, cuts) = (ends(), Arc::clone(&is_mute), Arc::clone(cut));
    thread::spawn(move || {
        let mut carried = 0;
        each_block(&mut from, |block| {
            carried += block.len();
            if MUCH < carried && cuts.load(Ordering::SeqCst) < CUTS {
                mute.store(true, Ordering::SeqCst);
            }
            to.write_all(block).is_ok()
        });
        hang_up([from, to]);
    });
    let ([mut to, mut from], cuts) = (ends(), Arc::clone(cut));
    thread::spawn(move || {
        each_block(&mut from, |block| {
            // It answers for records that it has: nobody hears it.
            if is_mute.load(Ordering::SeqCst) {
                cuts.fetch_add(1, Ordering::SeqCst);
                return false;
            }
            to.write_all(block).is_ok()
        });
        hang_up([from, to]);
    });
}

fn each_block(from: &mut TcpStream, mut take: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !take(&bytes[..count]) {
            break;
        }
    }
}

fn hang_up(ends: [TcpStream; 2]) {
    for end in ends {
        drop(end.shutdown(Shutdown::Both)); // It may be gone already.
    }
}

#[test]
fn records_whose_confirmation_is_cut_off_with_the_connection_are_there_once() {
    let broker = OwnBroker::start();
    broker.kafka().create_topic("cut", 2);
    let relay = Relay::new();
    let servers = format!("127.0.0.1:{}", relay.port);
    let behind = broker.listen_for(relay.port);
    let cut = relay.lead_to(behind);
    broker.kill();
    broker.restart();
    let runtime = Runtime::new().unwrap();
    let small = json!({"batch.num.messages": "50"});
    let section = section("cut", &json!({"brokers": servers, "client_config": small}));
    let connected = runtime.block_on(connect(section));
    let sinks = connected.unwrap_or_else(|error| panic!("{error}")).sinks;
    let value = |n: u32| format!("{n} {}", "x".repeat(100));
    let payloads = (0..5_000).map(|n| KafkaPayload::raw(value(n)));
    for settled in runtime.block_on(deliver_all(&sinks, payloads)) {
        assert_eq!(settled, Settled::Confirmed);
    }
    runtime.block_on(sinks.close(SOON));
    assert!(CUTS <= cut.load(Ordering::SeqCst), "connections were cut");
    let read = broker.kafka().read("cut").into_iter().map(|record| record.value.unwrap());
    let number = |value: Vec<u8>| {
        String::from_utf8(value).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let mut there = vec![0; 5_000];
    read.map(number).for_each(|number| there[number] += 1);
    let wrong: Vec<usize> = (0..there.len()).filter(|number| there[*number] != 1).collect();
    assert!(wrong.is_empty(), "lost or there twice: {wrong:?}");
}
