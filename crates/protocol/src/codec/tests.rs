//! Round trips, mutations, and one example of each refusal.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{DecodeError, Wire};
use crate::ids::{
    ClientId, Digest, InstanceId, PublicKey, Regency, ReplicaId, Sequence, SessionId, Signature, ViewId,
};
use crate::limits::{BUNDLE_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX, FETCH_MAX};
use crate::manifest::{Chunk, ManifestHead};
use crate::message::{
    Batch, BatchAnswer, Body, Bundle, BundleProof, ChainCertificate, ChainSignature, CheckpointCertificate,
    ClientMessage, Decided, FetchBatch, FetchBodies, Message, Outcome, Propose, Refusal, ReplicaMessage,
    Reply, Request, Status, Supply, Vote, Wanted,
};
use crate::record::RecordedBatch;
use crate::time::Timestamp;

fn digest() -> impl Strategy<Value = Digest> {
    any::<u8>().prop_map(|byte| Digest([byte; 32]))
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<u8>().prop_map(|byte| Signature([byte; 64]))
}

fn request_of(client: u8) -> impl Strategy<Value = Arc<Request>> {
    let client = ClientId([client; 32]);
    let open = (any::<u64>(), any::<u64>())
        .prop_map(move |(nonce, until)| Arc::new(Request::open(client, nonce, Timestamp(until))));
    let ordered = (any::<u64>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..40)).prop_map(
        move |(session, sequence, floor, payload)| {
            Arc::new(Request::ordered(
                client,
                SessionId(session),
                Sequence(sequence),
                Sequence(floor),
                &payload,
            ))
        },
    );
    prop_oneof![1 => open, 3 => ordered]
}

/// Bodies of up to three bundles, those of one bundle under one proof, and some without any.
fn bodies() -> impl Strategy<Value = Vec<Body>> {
    let bundle =
        (vec(request_of(1), 1..4), signature(), any::<bool>()).prop_map(|(requests, signature, signed)| {
            let digests = requests.iter().map(|request| request.digest()).collect();
            let proof = signed
                .then(|| Arc::new(BundleProof { key: PublicKey([4; 32]), requests: digests, signature }));
            requests.into_iter().map(|request| Body { request, proof: proof.clone() }).collect::<Vec<_>>()
        });
    vec(bundle, 0..4).prop_map(|bundles| bundles.concat())
}

prop_compose! {
    fn batch()(
        view in any::<u64>(), instance in any::<u64>(), timestamp in any::<u64>(), requests in vec(digest(), 0..5),
    ) -> Arc<Batch> {
        let (view, instance, timestamp) = (ViewId(view), InstanceId(instance), Timestamp(timestamp));
        Arc::new(Batch { view, instance, timestamp, requests })
    }
}

prop_compose! {
    fn vote()(
        view in any::<u64>(), instance in any::<u64>(), regency in any::<u64>(), digest in digest(),
    ) -> Vote {
        Vote { view: ViewId(view), instance: InstanceId(instance), regency: Regency(regency), digest }
    }
}

prop_compose! {
    fn status()(numbers in any::<[u64; 8]>(), is_live in any::<bool>()) -> Status {
        let [view, regency, decided, retained_from, logged_from, stable, certified, sent] = numbers;
        Status {
            view: ViewId(view),
            regency: Regency(regency),
            is_live,
            decided: InstanceId(decided),
            retained_from: InstanceId(retained_from),
            logged_from: InstanceId(logged_from),
            stable: InstanceId(stable),
            certified: InstanceId(certified),
            sent: Timestamp(sent),
        }
    }
}

prop_compose! {
    fn certificate()(place in vote(), signatures in btree_map(any::<u16>(), signature(), 0..5)) -> ChainCertificate {
        let signatures = signatures.into_iter().map(|(signer, signature)| (ReplicaId(signer), signature));
        let Vote { view, instance, digest: chain, .. } = place;
        ChainCertificate { view, instance, chain, signatures: signatures.collect() }
    }
}

prop_compose! {
    fn wanted()(kind in 0..5_u8, numbers in any::<[u64; 2]>(), root in digest(), part in any::<u32>()) -> Wanted {
        let [first, second] = numbers;
        let (view, from, last) = (ViewId(first), InstanceId(first), InstanceId(second));
        match kind {
            0 => Wanted::Digests { view, from, last },
            1 => Wanted::Batches { view, from, last },
            2 => Wanted::Snapshot { view, above: last },
            3 => Wanted::Page { instance: last, root, page: part },
            _ => Wanted::Chunk { instance: last, root, index: part },
        }
    }
}

prop_compose! {
    fn recorded()(requests in vec(request_of(1), 0..4), numbers in any::<[u64; 3]>()) -> RecordedBatch {
        let [view, instance, timestamp] = numbers;
        let digests = requests.iter().map(|request| request.digest()).collect();
        let batch = Batch {
            view: ViewId(view),
            instance: InstanceId(instance),
            timestamp: Timestamp(timestamp),
            requests: digests,
        };
        RecordedBatch { batch: Arc::new(batch), requests }
    }
}

fn supply() -> impl Strategy<Value = Supply> {
    prop_oneof![
        wanted().prop_map(Supply::Nothing),
        (any::<u64>(), vec(digest(), 0..5))
            .prop_map(|(from, digests)| Supply::Digests { from: InstanceId(from), digests }),
        vec(recorded(), 0..4).prop_map(Supply::Batches),
        (certificate(), digest(), vec(digest(), 0..4), any::<[u64; 2]>()).prop_map(
            |(certificate, root, pages, [chunks, total_bytes])| {
                let ChainCertificate { view, instance, chain, signatures } = certificate;
                Supply::Snapshot {
                    certificate: CheckpointCertificate { view, instance, chain, root, signatures },
                    head: ManifestHead { chunks, total_bytes, pages },
                }
            }
        ),
        (any::<u64>(), any::<u32>(), vec((any::<u32>(), digest()), 0..5)).prop_map(
            |(instance, page, chunks)| {
                let chunks = chunks.into_iter().map(|(length, hash)| Chunk { length, hash }).collect();
                Supply::Page { instance: InstanceId(instance), page, chunks }
            }
        ),
        (any::<u64>(), any::<u32>(), vec(any::<u8>(), 0..50)).prop_map(|(instance, index, bytes)| {
            Supply::Chunk { instance: InstanceId(instance), index, bytes: bytes.into() }
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        wanted().prop_map(Message::Fetch),
        supply().prop_map(Message::Supply),
        (any::<u64>(), batch(), bodies()).prop_map(|(regency, batch, inline)| {
            Message::Propose(Propose { regency: Regency(regency), batch, inline })
        }),
        vote().prop_map(Message::Write),
        vote().prop_map(Message::Accept),
        vote().prop_map(|Vote { view, instance, digest, .. }| {
            Message::Decided(Decided { view, instance, digest })
        }),
        vote().prop_map(|Vote { view, instance, digest, .. }| {
            Message::FetchBatch(FetchBatch { view, instance, digest })
        }),
        (batch(), bodies()).prop_map(|(batch, bodies)| Message::BatchAnswer(BatchAnswer { batch, bodies })),
        (any::<u64>(), vec(digest(), 0..5)).prop_map(|(instance, requests)| {
            Message::FetchBodies(FetchBodies { instance: InstanceId(instance), requests })
        }),
        bodies().prop_map(Message::Bodies),
        status().prop_map(Message::Status),
        (vote(), signature()).prop_map(|(place, signature)| {
            let Vote { view, instance, digest: chain, .. } = place;
            Message::ChainSignature(ChainSignature { view, instance, chain, signature })
        }),
        certificate().prop_map(Message::ChainCertificate),
    ]
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    (any::<Option<u8>>(), any::<bool>(), vec(request_of(1), 1..5)).prop_map(
        |(signature, whole_results, requests)| {
            let signature = signature.map(|byte| Signature([byte; 64]));
            ClientMessage::Bundle(Bundle { signature, whole_results, requests })
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<u64>().prop_map(|micros| Refusal::Busy { retry_after: Duration::from_micros(micros) }),
        Just(Refusal::TooFarAhead),
        Just(Refusal::SessionExpired),
        Just(Refusal::TooLarge),
        Just(Refusal::UnknownClient),
        Just(Refusal::OpenExpired),
        Just(Refusal::SessionsExhausted),
        Just(Refusal::BadSignature),
        Just(Refusal::Rejected),
        Just(Refusal::ResultTooLarge),
        Just(Refusal::SequenceReused),
        Just(Refusal::ResultDiscarded),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(|result| Outcome::Result(result.into())),
        digest().prop_map(Outcome::ResultDigest),
        refusal().prop_map(Outcome::Refused),
    ]
}

prop_compose! {
    fn reply()(session in any::<u64>(), sequence in any::<u64>(), outcome in outcome()) -> Reply {
        Reply { session: SessionId(session), sequence: Sequence(sequence), outcome }
    }
}

fn replica_message() -> impl Strategy<Value = ReplicaMessage> {
    (any::<u64>(), vec(reply(), 0..5))
        .prop_map(|(view, replies)| ReplicaMessage::Replies { view: ViewId(view), replies })
}

/// What a network or an adversary does to a frame.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<prop::sample::Index>(), 1..=u8::MAX).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        any::<prop::sample::Index>().prop_map(Mutation::Cut),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<prop::sample::Index>().prop_map(Mutation::Remove),
    ]
}

fn mutated(frame: &Bytes, mutations: &[Mutation]) -> Bytes {
    let mut bytes = frame.to_vec();
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Flip(at, mask) => {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Mutation::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
        }
    }
    bytes.into()
}

fn decodes_to_itself<M: Wire + PartialEq + std::fmt::Debug>(message: &M) {
    assert_eq!(M::decode(message.to_frame()).as_ref(), Ok(message));
}

/// Whatever decodes has no other encoding.
fn is_canonical<M: Wire>(frame: &Bytes) {
    if let Ok(message) = M::decode(frame.clone()) {
        assert_eq!(message.to_frame(), frame);
    }
}

proptest! {
    #[test]
    fn peer_messages_decode_to_themselves(message in message()) {
        decodes_to_itself(&message);
    }

    #[test]
    fn client_messages_decode_to_themselves(message in client_message()) {
        decodes_to_itself(&message);
    }

    #[test]
    fn replica_messages_decode_to_themselves(message in replica_message()) {
        decodes_to_itself(&message);
    }

    #[test]
    fn mutated_peer_frames_have_one_encoding(message in message(), mutations in vec(mutation(), 1..4)) {
        is_canonical::<Message>(&mutated(&message.to_frame(), &mutations));
    }

    #[test]
    fn mutated_client_frames_have_one_encoding(
        message in client_message(), mutations in vec(mutation(), 1..4),
    ) {
        is_canonical::<ClientMessage>(&mutated(&message.to_frame(), &mutations));
    }

    #[test]
    fn mutated_replica_frames_have_one_encoding(
        message in replica_message(), mutations in vec(mutation(), 1..4),
    ) {
        is_canonical::<ReplicaMessage>(&mutated(&message.to_frame(), &mutations));
    }

    #[test]
    fn random_frames_have_one_encoding(kind in 0_u8..100, rest in vec(any::<u8>(), 0..200)) {
        let frame = Bytes::from([vec![1, kind], rest].concat());
        is_canonical::<Message>(&frame);
        is_canonical::<ClientMessage>(&frame);
        is_canonical::<ReplicaMessage>(&frame);
    }

    #[test]
    fn a_frame_cut_short_is_refused(message in message(), at in any::<prop::sample::Index>()) {
        let frame = message.to_frame();
        let cut = frame.slice(..at.index(frame.len()));
        let is_truncated = matches!(Message::decode(cut), Err(DecodeError::Truncated { .. }));
        prop_assert!(is_truncated);
    }
}

fn request(sequence: u64) -> Arc<Request> {
    Arc::new(Request::ordered(ClientId([1; 32]), SessionId(9), Sequence(sequence), Sequence(1), b"put"))
}

fn frame_of(request: &Request) -> Vec<u8> {
    let bundle = [vec![1, 64, 0, 0, 1, 0, 0, 0], request.encoded().to_vec()];
    bundle.concat()
}

fn refused<M: Wire + std::fmt::Debug>(frame: impl Into<Bytes>) -> DecodeError {
    M::decode(frame.into()).unwrap_err()
}

#[test]
fn version_and_kind_come_first() {
    assert_eq!(refused::<Message>(vec![2, 1]), DecodeError::UnknownVersion(2));
    assert_eq!(refused::<Message>(vec![1, 0]), DecodeError::UnknownKind(0));
    assert_eq!(refused::<Message>(vec![1, 64]), DecodeError::UnknownKind(64));
    assert_eq!(refused::<ClientMessage>(vec![1, 1]), DecodeError::UnknownKind(1));
    assert_eq!(refused::<ReplicaMessage>(vec![1, 64]), DecodeError::UnknownKind(64));
    assert_eq!(refused::<Message>(vec![1]), DecodeError::Truncated { needed: 1, remaining: 0 });
    assert_eq!(refused::<Message>(vec![]), DecodeError::Truncated { needed: 1, remaining: 0 });
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut frame = frame_of(&request(1));
    assert!(ClientMessage::decode(frame.clone().into()).is_ok());
    frame.push(0);
    assert_eq!(refused::<ClientMessage>(frame), DecodeError::TrailingBytes(1));
}

#[test]
fn a_count_over_its_limit_allocates_nothing() {
    let fetch = [vec![1, 7], vec![0; 8], (FETCH_MAX as u32 + 1).to_le_bytes().to_vec()].concat();
    let over = DecodeError::OverLimit { what: "bodies asked for", value: FETCH_MAX + 1, limit: FETCH_MAX };
    assert_eq!(refused::<Message>(fetch), over);
    let bundle = [vec![1, 64, 0, 0], u32::MAX.to_le_bytes().to_vec()].concat();
    let over = DecodeError::OverLimit {
        what: "bundle requests",
        value: u32::MAX as usize,
        limit: BUNDLE_REQUESTS_MAX,
    };
    assert_eq!(refused::<ClientMessage>(bundle), over);
}

#[test]
fn a_count_above_what_is_left_allocates_nothing() {
    let fetch = [vec![1, 7], vec![0; 8], 1000_u32.to_le_bytes().to_vec(), vec![0; 31]].concat();
    assert_eq!(refused::<Message>(fetch), DecodeError::Truncated { needed: 32_000, remaining: 31 });
}

#[test]
fn a_frame_over_its_limit_is_refused_unread() {
    let frame = vec![0; CLIENT_FRAME_BYTES_MAX + 1];
    let over = DecodeError::OverLimit {
        what: "frame",
        value: CLIENT_FRAME_BYTES_MAX + 1,
        limit: CLIENT_FRAME_BYTES_MAX,
    };
    assert_eq!(refused::<ClientMessage>(frame), over);
}

#[test]
fn a_truth_value_is_zero_or_one() {
    let mut frame = frame_of(&request(1));
    frame[3] = 2;
    let error = DecodeError::NonCanonical("a truth value other than 0 and 1");
    assert_eq!(refused::<ClientMessage>(frame), error);
}

#[test]
fn an_open_names_no_session_and_carries_its_time() {
    let open = Request::open(ClientId([1; 32]), 7, Timestamp(9));
    let at = 8 + 32; // past the bundle's header and the client
    let mut with_session = frame_of(&open);
    with_session[at] = 1;
    let error = DecodeError::NonCanonical("OPEN with a session or a floor");
    assert_eq!(refused::<ClientMessage>(with_session), error);
    let mut short = frame_of(&open);
    short.pop();
    short[at + 25] = 7;
    let error = DecodeError::NonCanonical("OPEN whose payload is not its valid_until");
    assert_eq!(refused::<ClientMessage>(short), error);
    let mut unknown = frame_of(&open);
    unknown[at + 24] = 9;
    assert_eq!(refused::<ClientMessage>(unknown), DecodeError::NonCanonical("unknown kind of request"));
}

#[test]
fn a_bundle_is_of_one_client() {
    let empty = vec![1, 64, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused::<ClientMessage>(empty), DecodeError::NonCanonical("an empty bundle"));
    let other = Request::open(ClientId([2; 32]), 7, Timestamp(9));
    let mut mixed = [frame_of(&request(1)), other.encoded().to_vec()].concat();
    mixed[4] = 2;
    assert_eq!(refused::<ClientMessage>(mixed), DecodeError::NonCanonical("a bundle of several clients"));
}

#[test]
fn signers_of_a_certificate_are_sorted_and_distinct() {
    let certificate = |signers: [u16; 2]| {
        let signatures = signers.map(|signer| (ReplicaId(signer), Signature([0; 64]))).to_vec();
        let (view, instance, chain) = (ViewId(0), InstanceId(4), Digest([3; 32]));
        Message::ChainCertificate(ChainCertificate { view, instance, chain, signatures }).to_frame()
    };
    assert!(Message::decode(certificate([1, 2])).is_ok());
    let error = DecodeError::NonCanonical("signers that are not sorted, or stand twice");
    assert_eq!(refused::<Message>(certificate([2, 1])), error);
    assert_eq!(refused::<Message>(certificate([2, 2])), error);
}

#[test]
fn a_proof_covers_its_request() {
    let proof = BundleProof {
        key: PublicKey([4; 32]),
        requests: vec![request(1).digest()],
        signature: Signature([5; 64]),
    };
    let body = Body { request: request(2), proof: Some(Arc::new(proof)) };
    assert_eq!(refused::<Message>(Message::Bodies(vec![body]).to_frame()), DecodeError::RequestNotInProof);
}

#[test]
fn a_bundles_proof_travels_once_and_is_shared_again() {
    let requests = [request(1), request(2), request(3)];
    let digests: Vec<_> = requests.iter().map(|request| request.digest()).collect();
    let proof = BundleProof { key: PublicKey([4; 32]), requests: digests, signature: Signature([5; 64]) };
    // Equal proofs are one proof, whoever holds them.
    let bodies = requests.map(|request| Body { request, proof: Some(Arc::new(proof.clone())) });
    let frame = Message::Bodies(bodies.to_vec()).to_frame();
    assert!(frame.len() < 3 * (64 + 3) + 2 * (3 * 32 + 64));
    let Ok(Message::Bodies(decoded)) = Message::decode(frame) else { panic!("bodies") };
    let proofs: Vec<_> = decoded.iter().filter_map(|body| body.proof.as_ref()).collect();
    assert!(proofs.len() == 3 && proofs.iter().all(|proof| Arc::ptr_eq(proof, proofs[0])));
    assert_eq!(decoded, bodies);
}

#[test]
fn a_large_request_shares_the_frame_and_a_small_one_does_not_hold_it() {
    let large = Request::ordered(ClientId([1; 32]), SessionId(9), Sequence(1), Sequence(1), &[7; 100_000]);
    let large_frame = Bytes::from(frame_of(&large));
    let small_frame = Bytes::from(frame_of(&request(1)));
    let shares = |frame: &Bytes| {
        let Ok(ClientMessage::Bundle(bundle)) = ClientMessage::decode(frame.clone()) else {
            panic!("bundle")
        };
        let encoded = bundle.requests[0].encoded().as_ptr_range();
        let whole = frame.as_ptr_range();
        whole.start <= encoded.start && encoded.end <= whole.end
    };
    assert!(shares(&large_frame));
    assert!(!shares(&small_frame));
}
