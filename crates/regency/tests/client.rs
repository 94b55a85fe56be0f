//! Clients over real sockets, against stubs: what comes of answers, lies, silence, resets and refusals.

mod stub;

use std::io::Write;
use std::time::{Duration, Instant};

use regency::client::{Client, ClientError, Connections, Signatures, blocking};
use regency::crypto::SigningKey;
use regency::protocol::message::Refusal;
use regency::protocol::view::RequestAuth;
use regency::transport::RefusalCode;
use stub::{Manner, Stub, cluster, config, free_addresses, replica_key, view};

const HONEST: [Manner; 4] = [Manner::Echo; 4];
const SOON: Duration = Duration::from_millis(500);

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_thousand_calls_in_flight_all_come_back() {
    let (_stubs, view) = cluster(HONEST, RequestAuth::Channel);
    run(async {
        let client = Client::connect(config(&view)).await.unwrap();
        let calls: Vec<_> = (0..1000_u32).map(|n| (n, client.start(n.to_le_bytes().to_vec()))).collect();
        for (number, call) in calls {
            assert_eq!(call.await.unwrap(), number.to_le_bytes()[..]);
        }
        client.close().await;
    });
}

#[test]
fn a_blocking_client_has_many_calls_in_flight_too() {
    let (_stubs, view) = cluster(HONEST, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    let calls: Vec<_> = (0..1000_u32).map(|n| (n, client.start(n.to_le_bytes().to_vec()))).collect();
    for (number, call) in calls {
        assert_eq!(call.wait().unwrap(), number.to_le_bytes()[..]);
    }
    let threads: Vec<_> = (0..8_u8)
        .map(|n| {
            let client = client.clone();
            std::thread::spawn(move || {
                (0..50).for_each(|_| assert_eq!(client.invoke(vec![n]).unwrap(), [n][..]))
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_liar_and_digests_do_not_matter() {
    let manners = [Manner::Lie, Manner::EchoDigest, Manner::Echo, Manner::EchoDigest];
    let (_stubs, view) = cluster(manners, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    assert_eq!(client.invoke(vec![7; 100_000]).unwrap(), vec![7; 100_000]);
}

#[test]
fn without_a_whole_result_the_client_asks_for_it() {
    let manners = [Manner::Lie, Manner::EchoDigest, Manner::EchoDigest, Manner::EchoDigest];
    let (_stubs, view) = cluster(manners, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    assert_eq!(client.invoke(vec![7; 100_000]).unwrap(), vec![7; 100_000]);
}

#[test]
fn each_session_may_have_connections_of_its_own() {
    let (_stubs, view) = cluster(HONEST, RequestAuth::Channel);
    let mut config = config(&view);
    config.connections = Connections::PerSession;
    config.sessions = 10;
    let client = blocking::Client::connect(&config).unwrap();
    let calls: Vec<_> = (0..100_u8).map(|n| (n, client.start(vec![n]))).collect();
    for (number, call) in calls {
        assert_eq!(call.wait().unwrap(), [number][..]);
    }
}

#[test]
fn signatures_cover_bundles_or_requests() {
    for signatures in [Signatures::PerBundle, Signatures::PerRequest] {
        let (stubs, view) = cluster(HONEST, RequestAuth::Signature);
        let mut config = config(&view);
        config.signatures = signatures;
        config.sessions = 1;
        let client = blocking::Client::connect(&config).unwrap();
        let calls: Vec<_> = (0..60_u8).map(|n| client.start(vec![n])).collect();
        calls.into_iter().for_each(|call| assert!(call.wait().is_ok()));
        let count = || stubs[0].signatures.load(std::sync::atomic::Ordering::SeqCst);
        match signatures {
            Signatures::PerBundle => assert!(count() < 61, "{} signatures for 60 calls and an OPEN", count()),
            // A call is over when enough others have answered: this one may still be reading.
            Signatures::PerRequest => {
                let until = Instant::now() + Duration::from_secs(10);
                while count() < 61 && Instant::now() < until {
                    std::thread::yield_now();
                }
                assert_eq!(count(), 61);
            }
        }
    }
}

#[test]
fn a_client_may_start_before_the_replicas() {
    let addresses = free_addresses(4);
    let view = view(&addresses, RequestAuth::Channel);
    run(async {
        let client = Client::start_unconnected(&config(&view)).unwrap();
        let call = client.start(&b"early"[..]);
        let early = client.invoke_with_deadline(&b"too early"[..], Duration::from_millis(50)).await;
        assert!(matches!(early, Err(ClientError::NoQuorum { replies: 0, sent: false, .. })), "{early:?}");
        let stub = |id: u16| Stub::start(addresses[usize::from(id)], id, &replica_key(id), Manner::Echo);
        let _stubs: Vec<_> = (0..4).map(stub).collect();
        assert_eq!(call.await.unwrap(), &b"early"[..]);
    });
}

#[test]
fn calls_survive_the_reset_of_every_connection() {
    let (stubs, view) = cluster(HONEST, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    for round in 0..20_u8 {
        let calls: Vec<_> = (0..50_u8).map(|n| (n, client.start(vec![round, n]))).collect();
        stubs.iter().for_each(Stub::reset);
        for (number, call) in calls {
            assert_eq!(call.wait().unwrap(), [round, number][..]);
        }
    }
}

#[test]
fn silence_ends_at_the_deadline_with_what_was_heard() {
    let manners = [Manner::Echo, Manner::Silent, Manner::Silent, Manner::Echo];
    let (stubs, view) = cluster(manners, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    drop(stubs.into_iter().next_back());
    let begin = Instant::now();
    let error = client.invoke_with_deadline(&b"x"[..], SOON).unwrap_err();
    assert!(begin.elapsed() >= SOON);
    let ClientError::NoQuorum { replies, needed: 2, refused: 0, sent: true, .. } = error else {
        panic!("{error}")
    };
    assert!(replies <= 1);
    assert!(error.may_be_executed());
}

#[test]
fn a_wrong_cluster_an_unknown_client_and_a_wrong_key_end_before_the_deadline() {
    for code in [RefusalCode::WrongCluster, RefusalCode::UnknownClient] {
        let manners = [Manner::Refuse(code), Manner::Silent, Manner::Refuse(code), Manner::Refuse(code)];
        let (_stubs, view) = cluster(manners, RequestAuth::Channel);
        let begin = Instant::now();
        let error = blocking::Client::connect(&config(&view)).err().unwrap();
        assert!(matches!(error, ClientError::NotAdmitted { code: told, .. } if told == code), "{error}");
        let client = Client::start_unconnected(&config(&view)).unwrap();
        let error = run(client.invoke(&b"x"[..])).unwrap_err();
        assert!(matches!(error, ClientError::NotAdmitted { sent: false, .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
    let addresses = free_addresses(4);
    let view = view(&addresses, RequestAuth::Channel);
    let impostor = |id: u16| {
        let key = SigningKey::from_seed([77; 32]);
        Stub::start(addresses[usize::from(id)], id, &key, Manner::Echo)
    };
    let _stubs: Vec<_> = (0..4).map(impostor).collect();
    let error = blocking::Client::connect(&config(&view)).err().unwrap();
    assert!(matches!(error, ClientError::WrongKey { .. }), "{error}");
}

#[test]
fn a_port_that_says_nothing_and_one_that_speaks_something_else_are_not_waited_for() {
    let addresses = free_addresses(4);
    let view = view(&addresses, RequestAuth::Channel);
    let mute = std::net::TcpListener::bind(addresses[0]).unwrap();
    let babble = std::net::TcpListener::bind(addresses[1]).unwrap();
    let babbler = std::thread::spawn(move || {
        let (mut socket, _) = babble.accept().unwrap();
        // The client may have hung up before all of it is written.
        let _ = socket.write_all(&[b'?'; 100_000]);
    });
    let stub = |id: u16| Stub::start(addresses[usize::from(id)], id, &replica_key(id), Manner::Echo);
    let _stubs = [stub(2), stub(3)];
    let client = blocking::Client::connect(&config(&view)).unwrap();
    for number in 0..10_u8 {
        assert_eq!(client.invoke_with_deadline(vec![number], SOON * 4).unwrap(), [number][..]);
    }
    babbler.join().unwrap();
    drop(mute);
}

#[test]
fn one_refusing_replica_is_not_believed() {
    let manners = [Manner::Refuse(RefusalCode::UnknownClient), Manner::Echo, Manner::Echo, Manner::Echo];
    let (_stubs, view) = cluster(manners, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    assert!(client.invoke(&b"x"[..]).is_ok());
}

#[test]
fn host_names_are_resolved() {
    let (_stubs, view) = cluster(HONEST, RequestAuth::Channel);
    let members = view.members().iter().cloned().map(|mut member| {
        member.address = member.address.replace("127.0.0.1", "localhost");
        member
    });
    let parts = regency::protocol::view::ViewParts {
        cluster: view.cluster(),
        id: view.id(),
        mode: view.mode(),
        faults: view.faults(),
        members: members.collect(),
        clients: view.clients().clone(),
        request_auth: view.request_auth(),
    };
    let view = std::sync::Arc::new(regency::protocol::view::View::new(parts).unwrap());
    let client = blocking::Client::connect(&config(&view)).unwrap();
    assert!(client.invoke(&b"x"[..]).is_ok());
}

#[test]
fn what_is_too_large_is_refused_at_once() {
    let (_stubs, view) = cluster(HONEST, RequestAuth::Channel);
    let client = blocking::Client::connect(&config(&view)).unwrap();
    let error = client.invoke(vec![0; (256 << 10) + 1]).unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    assert!(!ClientError::Refused(Refusal::Rejected).may_be_executed());
    assert!(client.invoke(vec![0; 256 << 10]).is_ok());
}

#[test]
fn given_up_calls_make_room_and_closing_ends_the_rest() {
    let manners = [Manner::Silent; 4];
    let addresses = free_addresses(4);
    let view = view(&addresses, RequestAuth::Channel);
    let stubs = (0..).zip(manners).zip(&addresses);
    let _stubs: Vec<_> =
        stubs.map(|((id, manner), at)| Stub::start(*at, id, &replica_key(id), manner)).collect();
    run(async {
        let client = Client::start_unconnected(&config(&view)).unwrap();
        let given_up: Vec<_> = (0..2000).map(|_| client.start(&b"x"[..])).collect();
        drop(given_up);
        let last = client.start(&b"y"[..]);
        client.clone().close().await;
        assert_eq!(last.await, Err(ClientError::Closed { sent: false }));
        let after = client.invoke(&b"z"[..]).await;
        assert_eq!(after, Err(ClientError::Closed { sent: false }));
    });
}
