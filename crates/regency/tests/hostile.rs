//! Bad input against live replicas: a typed error, a counter, and nobody else notices.

mod harness;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use harness::channel::Channel;
use harness::cluster::{Counter, Plan, TestCluster, client_key, replica_key, stranger_key};
use harness::session::{Session, is_refusal};
use harness::{PATIENCE, eventually};
use regency::metrics::Fault;
use regency::protocol::codec::Wire;
use regency::protocol::ids::{Regency, ReplicaId};
use regency::protocol::limits::{CLIENT_FRAME_BYTES_MAX, Settings};
use regency::protocol::message::{Message, Outcome, Refusal, Stop};
use regency::protocol::view::RequestAuth;
use regency::replica::Patience;
use regency::transport::{Hello, RefusalCode, Role};

fn faults(cluster: &TestCluster, fault: Fault) -> u64 {
    cluster.replicas[&0].metrics().fault_count(fault)
}

/// Waits until replica 0 has counted the fault once more than before.
fn is_counted(cluster: &TestCluster, fault: Fault, before: u64) {
    eventually(fault.label(), || faults(cluster, fault) > before);
}

#[test]
fn wrong_keys_ids_clusters_and_versions_are_refused_by_name() {
    let cluster = TestCluster::start(Plan::default());
    let open = |key, role| Channel::open(&cluster, 0, &key, role).err();
    assert_eq!(open(stranger_key(), Role::Client), Some(RefusalCode::UnknownClient));
    assert_eq!(open(stranger_key(), Role::Replica(ReplicaId(2))), Some(RefusalCode::WrongKey));
    assert_eq!(open(client_key(0), Role::Replica(ReplicaId(2))), Some(RefusalCode::WrongKey));
    assert_eq!(open(replica_key(2), Role::Replica(ReplicaId(9))), Some(RefusalCode::UnknownReplica));
    assert_eq!(open(replica_key(0), Role::Replica(ReplicaId(0))), Some(RefusalCode::WrongKey));
    assert_eq!(open(client_key(0), Role::Client), None);
    let mut channel = Channel::connect(&cluster, 0, &client_key(0));
    let foreign = Channel::foreign_hello(&cluster);
    assert_eq!(channel.hello(&foreign), Err(RefusalCode::WrongCluster));
    assert!(channel.is_closed_within(PATIENCE));
    let mut channel = Channel::connect(&cluster, 0, &client_key(0));
    let future = Hello { version: 99, ..Hello::new(cluster.view(), Role::Client) };
    assert_eq!(channel.hello(&future), Err(RefusalCode::UnsupportedVersion));
    let metrics = cluster.replicas[&0].metrics();
    assert_eq!(metrics.refusal_count(RefusalCode::WrongKey), 3);
    assert_eq!(metrics.refusal_count(RefusalCode::UnknownClient), 1);
    assert_eq!(metrics.refusal_count(RefusalCode::WrongCluster), 1);
}

#[test]
fn a_replica_that_claims_another_id_does_not_displace_it() {
    let cluster = TestCluster::start(Plan::default());
    let claim = Channel::open(&cluster, 0, &replica_key(1), Role::Replica(ReplicaId(2)));
    assert_eq!(claim.err(), Some(RefusalCode::WrongKey));
    assert_eq!(cluster.status(0).peers_connected, 3);
    let mut session = Session::open(&cluster, client_key(0), 1);
    assert_eq!(session.add(5), 5);
}

#[test]
fn garbage_instead_of_tls_is_counted_and_closed() {
    let cluster = TestCluster::start(Plan::default());
    let mut session = Session::open(&cluster, client_key(0), 1);
    let before = faults(&cluster, Fault::Tls);
    for round in 0..50_u8 {
        let mut socket = TcpStream::connect(cluster.address(0)).unwrap();
        let noise: Vec<u8> = (0..5000_u32).map(|i| (i * 7919 + u32::from(round) * 31) as u8).collect();
        // The replica may close before all of it is written.
        let _ = socket.write_all(&noise);
    }
    is_counted(&cluster, Fault::Tls, before);
    assert_eq!(session.add(1), 1);
}

#[test]
fn frames_that_are_no_messages_close_the_channel_and_nothing_else() {
    let cluster = TestCluster::start(Plan::default());
    let mut session = Session::open(&cluster, client_key(0), 1);
    let genuine = session.bundle(vec![session.request(50, b"x")], &client_key(0));
    let mut trailing = genuine.clone();
    trailing.push(0);
    let unknown_kind = vec![genuine[0], 250];
    let peer_message = Message::Bodies(Vec::new()).to_frame().to_vec();
    let cases: [(&[u8], Fault); 6] = [
        (&[0xff; 100], Fault::UnknownVersion),
        (&unknown_kind, Fault::UnknownKind),
        (&genuine[..genuine.len() - 1], Fault::Undecodable),
        (&trailing, Fault::Undecodable),
        (&peer_message, Fault::UnknownKind),
        (&vec![1; CLIENT_FRAME_BYTES_MAX + 1], Fault::FrameTooLong),
    ];
    for (frame, fault) in cases {
        let before = faults(&cluster, fault);
        let mut channel = Channel::client(&cluster, 0, &client_key(1));
        channel.send(frame);
        assert!(channel.is_closed_within(PATIENCE), "{fault:?}");
        is_counted(&cluster, fault, before);
    }
    let mut no_hello = Channel::connect(&cluster, 0, &client_key(1));
    no_hello.send(b"GET / HTTP/1.1");
    assert!(no_hello.is_closed_within(PATIENCE));
    is_counted(&cluster, Fault::BadHandshake, 0);
    assert_eq!(session.add(3), 3, "the session next to it goes on");
}

#[test]
fn a_peer_that_sends_garbage_is_cut_off_and_may_come_back() {
    let cluster = TestCluster::start(Plan::default());
    let before = faults(&cluster, Fault::UnknownVersion);
    let mut impostor = Channel::open(&cluster, 0, &replica_key(3), Role::Replica(ReplicaId(3))).unwrap();
    impostor.send(&[0xff; 64]);
    assert!(impostor.is_closed_within(PATIENCE));
    is_counted(&cluster, Fault::UnknownVersion, before);
    cluster.wait_connected();
}

#[test]
fn a_line_for_bulk_is_a_members_and_carries_nothing_else() {
    let cluster = TestCluster::start(Plan::default());
    let stranger = Channel::open(&cluster, 0, &client_key(0), Role::Bulk(ReplicaId(3)));
    assert_eq!(stranger.err(), Some(RefusalCode::WrongKey));
    let mut line = Channel::open(&cluster, 0, &replica_key(3), Role::Bulk(ReplicaId(3))).unwrap();
    let stop = Stop { view: cluster.view().id(), regency: Regency(1) };
    line.send(&Message::Stop(stop).to_frame());
    assert!(line.is_closed_within(PATIENCE));
    is_counted(&cluster, Fault::WrongLane, 0);
    assert_eq!(Session::open(&cluster, client_key(0), 1).add(3), 3);
}

#[test]
fn silent_and_slow_connections_are_closed_in_time() {
    let mut cluster = TestCluster::new(Plan::default());
    let short = Duration::from_millis(300);
    let patience = Patience { handshake: short, frame: short, write: short };
    cluster.start_replica_patient(0, Counter::default(), patience);
    let silent = TcpStream::connect(cluster.address(0)).unwrap();
    let mut no_hello = Channel::connect(&cluster, 0, &client_key(0));
    let mut idle = Channel::client(&cluster, 0, &client_key(0));
    // A TLS record that never ends: its header promises more than comes.
    let mut slow = TcpStream::connect(cluster.address(0)).unwrap();
    slow.write_all(&[22, 3, 1, 0x10, 0]).unwrap();
    eventually("both handshakes have timed out", || faults(&cluster, Fault::HandshakeTimeout) >= 3);
    assert!(no_hello.is_closed_within(PATIENCE));
    assert!(!idle.is_closed_within(Duration::from_millis(1200)), "who has said who it is may be idle");
    drop(silent);
}

#[test]
fn a_false_signature_is_refused_and_the_session_survives() {
    let cluster = TestCluster::start(Plan::default());
    let mut session = Session::open(&cluster, client_key(0), 1);
    let forged = session.bundle(vec![session.request(1, &[0; 8])], &stranger_key());
    session.channels.get_mut(&0).unwrap().send(&forged);
    assert!(is_refusal(&session.outcome_at(0, 1), Refusal::BadSignature));
    assert_eq!(faults(&cluster, Fault::BadClientSignature), 1);
    assert_eq!(session.add(7), 7, "the same sequence, signed, is executed");
}

#[test]
fn a_request_in_anothers_name_closes_the_channel() {
    for request_auth in [RequestAuth::Signature, RequestAuth::Channel] {
        let cluster = TestCluster::start(Plan { request_auth, ..Plan::default() });
        let victim = Session::open(&cluster, client_key(0), 1);
        let stolen = victim.bundle(vec![victim.request(1, &[1; 8])], &client_key(0));
        let mut thief = Channel::client(&cluster, 0, &client_key(1));
        thief.send(&stolen);
        assert!(thief.is_closed_within(PATIENCE));
        is_counted(&cluster, Fault::ForeignRequest, 0);
    }
}

#[test]
fn overload_is_answered_with_busy_and_the_session_survives() {
    let settings = Settings { client_pending_bytes_max: 64 << 10, ..Settings::default() };
    let cluster = TestCluster::start(Plan { settings, ..Plan::default() });
    let mut session = Session::open(&cluster, client_key(0), 1);
    let requests = (1..=60).map(|sequence| session.request(sequence, &[9; 8 << 10])).collect();
    session.send(requests);
    // The bundle arrives whole, so whatever is above the bound is refused before anything is ordered.
    let refused = session.outcome_at(0, 60);
    assert!(matches!(refused, Outcome::Refused(Refusal::Busy { .. })), "{refused:?}");
    session.next = 61;
    session.add(0);
    eventually("the pool is empty", || (0..4).all(|id| cluster.status(id).pending_requests == 0));
}

#[test]
fn an_oversized_request_is_an_error_and_everybody_lives() {
    let settings = Settings { request_bytes_max: 1000, ..Settings::default() };
    let cluster = TestCluster::start(Plan { settings, ..Plan::default() });
    let mut session = Session::open(&cluster, client_key(0), 1);
    assert!(is_refusal(&session.invoke(1, &[0; 1001]), Refusal::TooLarge));
    assert_eq!(session.add(2), 2);
    for id in 0..4 {
        assert_eq!(cluster.status(id).state, "normal");
    }
}

#[test]
fn sequences_used_twice_or_too_far_ahead_have_defined_answers() {
    let cluster = TestCluster::start(Plan::default());
    let mut session = Session::open(&cluster, client_key(0), 1);
    assert_eq!(session.add(5), 5);
    let again = session.request(1, &5_u64.to_le_bytes());
    session.send(vec![again]);
    let Outcome::Result(sum) = session.outcome_at(0, 1) else { panic!("the kept answer is sent again") };
    assert_eq!(sum.as_ref(), 5_u64.to_le_bytes());
    let window = cluster.cluster.settings().session_window;
    let far = regency::protocol::message::Request::ordered(
        client_key(0).client_id(),
        session.id,
        regency::protocol::ids::Sequence(2 + window),
        regency::protocol::ids::Sequence(2),
        &[],
    );
    session.send(vec![far.into()]);
    assert!(is_refusal(&session.outcome_at(0, 2 + window), Refusal::TooFarAhead));
    assert_eq!(session.invoke(4, &1_u64.to_le_bytes()), Outcome::Result(6_u64.to_le_bytes().to_vec().into()));
    session.next = 5;
    assert_eq!(session.add(1), 7, "a skipped sequence blocks nobody");
}

#[test]
fn a_flood_of_connections_leaves_nothing_behind() {
    let cluster = TestCluster::start(Plan::default());
    let mut session = Session::open(&cluster, client_key(0), 1);
    for _ in 0..10 {
        let flood: Vec<TcpStream> =
            (0..60).map(|_| TcpStream::connect(cluster.address(0)).unwrap()).collect();
        drop(flood);
        session.add(1);
    }
    let channels: Vec<Channel> = (0..40).map(|_| Channel::client(&cluster, 0, &client_key(3))).collect();
    assert_eq!(cluster.status(0).clients_connected, 41);
    drop(channels);
    eventually("the connections are gone", || cluster.status(0).clients_connected == 1);
    assert_eq!(session.add(1), 11);
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let cluster = TestCluster::start(Plan { request_auth: RequestAuth::Channel, ..Plan::default() });
    let mut session = Session::open(&cluster, client_key(0), 1);
    session.invoke(1, &1_u64.to_le_bytes());
    // The same answered request again and again: each time the kept answer is sent.
    let again = session.bundle(vec![session.request(1, &1_u64.to_le_bytes()); 256], &client_key(0));
    let mut deaf = Channel::client(&cluster, 0, &client_key(0));
    eventually("the one who does not read is cut off", || {
        deaf.send_unread(&again);
        faults(&cluster, Fault::OutboundFull) > 0
    });
    let mut other = Session::open(&cluster, client_key(1), 1);
    other.add(1);
}

#[test]
fn pieces_that_make_no_long_message_cut_the_channel_and_nobody_else_notices() {
    let cluster = TestCluster::start(Plan::default());
    // A piece that claims to be the second of a message that never began, and one of a vote.
    let pieces = |place: u32, kind: u8| {
        let mut frame = vec![1, 19];
        frame.extend_from_slice(&(300_u32 << 10).to_le_bytes());
        frame.extend_from_slice(&place.to_le_bytes());
        frame.extend_from_slice(&[1, kind]);
        frame.resize(10 + (256 << 10), 0);
        frame
    };
    for frame in [pieces(256 << 10, 13), pieces(0, 2)] {
        let before = faults(&cluster, Fault::BadPiece);
        let mut channel = Channel::open(&cluster, 0, &replica_key(3), Role::Replica(ReplicaId(3))).unwrap();
        channel.send(&frame);
        is_counted(&cluster, Fault::BadPiece, before);
        assert!(channel.is_closed_within(PATIENCE));
    }
    let mut session = Session::open(&cluster, client_key(0), 1);
    assert_eq!(session.add(1), 1);
}
