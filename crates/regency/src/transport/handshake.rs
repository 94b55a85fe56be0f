//! The first frame each way after TLS: who one is, in which cluster, and whether one is let in.
//!
//! TLS has proved which key the other side holds; HELLO says in which role it comes. The side that was connected
//! to checks the role against the view ([`Hello::check`]) and answers WELCOME, or REFUSED with the reason, so that
//! a wrong configuration is named instead of timing out.

use regency_protocol::digest;
use regency_protocol::ids::{ClusterId, PublicKey, ReplicaId, ViewId};
use regency_protocol::view::View;
use thiserror::Error;

/// First bytes of a HELLO.
const MAGIC: [u8; 8] = *b"regency\x01";
/// The version of everything that follows on the connection.
pub const VERSION: u16 = 1;
/// Bytes of a handshake frame, at most; the frame limit until the handshake is over.
pub const HANDSHAKE_BYTES_MAX: usize = 512;
/// Bytes of the text in a refusal; longer ones are cut.
const TEXT_BYTES_MAX: usize = 256;
const HELLO_BYTES: usize = 8 + 2 + 32 + 1 + 2 + 8;
const ROLE_REPLICA: u8 = 0;
const ROLE_CLIENT: u8 = 1;
const ROLE_BULK: u8 = 2;
const ANSWER_WELCOME: u8 = 0;
const ANSWER_REFUSED: u8 = 1;

/// As what somebody connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// As this member.
    Replica(ReplicaId),
    /// As this member, for what is fetched and given only.
    Bulk(ReplicaId),
    /// As the client that its key makes it.
    Client,
}

/// What the connecting side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that it speaks.
    pub version: u16,
    /// The cluster that it looks for.
    pub cluster: ClusterId,
    /// As what it comes.
    pub role: Role,
    /// The newest view that it knows.
    pub view: ViewId,
}

/// What the other side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Come in.
    Welcome {
        /// The view of the answering replica.
        view: ViewId,
    },
    /// The connection is closed after this.
    Refused {
        /// Why.
        code: RefusalCode,
        /// The same for a human being.
        text: String,
    },
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The version is not spoken here.
    #[error("unsupported version")]
    UnsupportedVersion,
    /// This replica belongs to another cluster.
    #[error("wrong cluster")]
    WrongCluster,
    /// The key is not that of the replica whose id was claimed.
    #[error("wrong key for this replica id")]
    WrongKey,
    /// No member of the view has the id that was claimed.
    #[error("unknown replica")]
    UnknownReplica,
    /// The view does not list the client.
    #[error("unknown client")]
    UnknownClient,
    /// There are as many connections as there may be.
    #[error("too many connections")]
    TooManyConnections,
    /// The replica is about to stop.
    #[error("stopping")]
    Stopping,
}

impl RefusalCode {
    /// Every code there is.
    pub const ALL: &'static [Self] = &[
        Self::UnsupportedVersion,
        Self::WrongCluster,
        Self::WrongKey,
        Self::UnknownReplica,
        Self::UnknownClient,
        Self::TooManyConnections,
        Self::Stopping,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnsupportedVersion => "unsupported_version",
            Self::WrongCluster => "wrong_cluster",
            Self::WrongKey => "wrong_key",
            Self::UnknownReplica => "unknown_replica",
            Self::UnknownClient => "unknown_client",
            Self::TooManyConnections => "too_many_connections",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the same connection may be let in later without anybody changing a configuration.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        match self {
            Self::TooManyConnections | Self::Stopping => true,
            Self::UnsupportedVersion
            | Self::WrongCluster
            | Self::WrongKey
            | Self::UnknownReplica
            | Self::UnknownClient => false,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::UnsupportedVersion => 1,
            Self::WrongCluster => 2,
            Self::WrongKey => 3,
            Self::UnknownReplica => 4,
            Self::UnknownClient => 5,
            Self::TooManyConnections => 6,
            Self::Stopping => 7,
        }
    }
}

/// A first frame that is no handshake.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// It does not begin as one.
    #[error("the peer does not speak Regency's protocol")]
    NotRegency,
    /// It has another length or a field that says nothing.
    #[error("a malformed handshake")]
    Malformed,
}

impl Hello {
    /// What this side says when it connects as `role` under `view`.
    #[must_use]
    pub fn new(view: &View, role: Role) -> Self {
        Self { version: VERSION, cluster: view.cluster(), role, view: view.id() }
    }

    /// The frame's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.cluster.0);
        let (role, id) = match self.role {
            Role::Replica(id) => (ROLE_REPLICA, id.0),
            Role::Bulk(id) => (ROLE_BULK, id.0),
            Role::Client => (ROLE_CLIENT, 0),
        };
        out.push(role);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&self.view.0.to_le_bytes());
        out
    }

    /// Reads a frame's content.
    ///
    /// Of another version only the version is read, for the refusal; what else it says may stand elsewhere.
    pub fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        let mut rest = frame.strip_prefix(&MAGIC).ok_or(HandshakeError::NotRegency)?;
        let version = u16::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Ok(Self { version, cluster: ClusterId([0; 32]), role: Role::Client, view: ViewId(0) });
        }
        let cluster = ClusterId(take(&mut rest)?);
        let [role] = take(&mut rest)?;
        let id = u16::from_le_bytes(take(&mut rest)?);
        let role = match (role, id) {
            (ROLE_REPLICA, id) => Role::Replica(ReplicaId(id)),
            (ROLE_BULK, id) => Role::Bulk(ReplicaId(id)),
            (ROLE_CLIENT, 0) => Role::Client,
            _ => return Err(HandshakeError::Malformed),
        };
        let view = ViewId(u64::from_le_bytes(take(&mut rest)?));
        if !rest.is_empty() {
            return Err(HandshakeError::Malformed);
        }
        Ok(Self { version, cluster, role, view })
    }

    /// Whether the holder of `key` may come in as it says, by `view`, at the replica `me`.
    pub fn check(&self, key: &PublicKey, view: &View, me: ReplicaId) -> Result<(), RefusalCode> {
        if self.version != VERSION {
            return Err(RefusalCode::UnsupportedVersion);
        }
        if self.cluster != view.cluster() {
            return Err(RefusalCode::WrongCluster);
        }
        match self.role {
            Role::Replica(id) | Role::Bulk(id) if id == me => Err(RefusalCode::WrongKey),
            Role::Replica(id) | Role::Bulk(id) => match view.member(id) {
                None => Err(RefusalCode::UnknownReplica),
                Some(member) if member.key == *key => Ok(()),
                Some(_) => Err(RefusalCode::WrongKey),
            },
            Role::Client if view.admits(&digest::client_id(key)) => Ok(()),
            Role::Client => Err(RefusalCode::UnknownClient),
        }
    }
}

impl Answer {
    /// A refusal that explains itself by its code.
    #[must_use]
    pub fn refused(code: RefusalCode) -> Self {
        Self::Refused { code, text: code.to_string() }
    }

    /// The frame's content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Welcome { view } => {
                out.push(ANSWER_WELCOME);
                out.extend_from_slice(&view.0.to_le_bytes());
            }
            Self::Refused { code, text } => {
                out.push(ANSWER_REFUSED);
                out.push(code.number());
                let end = (0..=text.len().min(TEXT_BYTES_MAX))
                    .rev()
                    .find(|end| text.is_char_boundary(*end))
                    .unwrap_or(0);
                out.extend_from_slice(&text.as_bytes()[..end]);
            }
        }
        out
    }

    /// Reads a frame's content.
    pub fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        match frame {
            [ANSWER_WELCOME, view @ ..] => {
                let view = view.try_into().map_err(|_| HandshakeError::Malformed)?;
                Ok(Self::Welcome { view: ViewId(u64::from_le_bytes(view)) })
            }
            [ANSWER_REFUSED, number, text @ ..] => {
                let code = RefusalCode::ALL.iter().find(|code| code.number() == *number);
                let text = std::str::from_utf8(text).map_err(|_| HandshakeError::Malformed)?;
                let code = *code.ok_or(HandshakeError::Malformed)?;
                // What a peer writes reaches terminals and logs: nothing but visible characters.
                let text = text.chars().filter(|c| !c.is_control()).take(TEXT_BYTES_MAX).collect();
                Ok(Self::Refused { code, text })
            }
            _ => Err(HandshakeError::Malformed),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], HandshakeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(HandshakeError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use regency_protocol::view::{Clients, Member, Mode, RequestAuth, ViewParts};

    use super::*;

    fn key(seed: u8) -> PublicKey {
        PublicKey([seed; 32])
    }

    fn view(clients: Clients) -> View {
        let members = (0..4)
            .map(|id| Member {
                id: ReplicaId(id),
                address: format!("localhost:{id}"),
                key: key(u8::try_from(id).unwrap()),
            })
            .collect();
        View::new(ViewParts {
            cluster: ClusterId([9; 32]),
            id: ViewId(3),
            mode: Mode::Bft,
            faults: 1,
            members,
            clients,
            request_auth: RequestAuth::Channel,
        })
        .unwrap()
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let view = view(Clients::Open);
        for role in [Role::Client, Role::Replica(ReplicaId(3))] {
            let hello = Hello::new(&view, role);
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
        let mut answers: Vec<Answer> = RefusalCode::ALL.iter().map(|code| Answer::refused(*code)).collect();
        answers.push(Answer::Welcome { view: ViewId(7) });
        for answer in answers {
            assert!(answer.encode().len() <= HANDSHAKE_BYTES_MAX);
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn truncated_or_altered_handshakes_are_errors_not_panics() {
        let hello = Hello::new(&view(Clients::Open), Role::Client).encode();
        for end in 0..hello.len() {
            assert!(Hello::decode(&hello[..end]).is_err());
        }
        let longer = [hello.as_slice(), &[0]].concat();
        assert_eq!(Hello::decode(&longer), Err(HandshakeError::Malformed));
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n"), Err(HandshakeError::NotRegency));
        for wrong in [&[][..], &[0, 1], &[1], &[1, 99], &[2], &[1, 1, 0xff]] {
            assert_eq!(Answer::decode(wrong), Err(HandshakeError::Malformed));
        }
    }

    #[test]
    fn each_wrong_peer_is_told_why() {
        let listed = BTreeMap::from([(digest::client_id(&key(50)), key(50))]);
        let view = view(Clients::Listed(listed));
        let me = ReplicaId(0);
        let hello = |role| Hello::new(&view, role);
        let replica = |id| hello(Role::Replica(ReplicaId(id)));
        assert_eq!(replica(1).check(&key(1), &view, me), Ok(()));
        assert_eq!(replica(1).check(&key(2), &view, me), Err(RefusalCode::WrongKey));
        assert_eq!(replica(0).check(&key(0), &view, me), Err(RefusalCode::WrongKey));
        assert_eq!(replica(4).check(&key(4), &view, me), Err(RefusalCode::UnknownReplica));
        assert_eq!(hello(Role::Client).check(&key(50), &view, me), Ok(()));
        assert_eq!(hello(Role::Client).check(&key(51), &view, me), Err(RefusalCode::UnknownClient));
        let elsewhere = Hello { cluster: ClusterId([8; 32]), ..replica(1) };
        assert_eq!(elsewhere.check(&key(1), &view, me), Err(RefusalCode::WrongCluster));
        let mut newer = replica(1).encode();
        newer[8] = 2;
        let newer = Hello::decode(&newer).unwrap();
        assert_eq!(newer.check(&key(1), &view, me), Err(RefusalCode::UnsupportedVersion));
    }

    #[test]
    fn the_text_of_a_refusal_is_bounded_and_harmless() {
        let long = Answer::Refused { code: RefusalCode::Stopping, text: "ö".repeat(1000) };
        assert!(long.encode().len() <= HANDSHAKE_BYTES_MAX);
        let Ok(Answer::Refused { text, .. }) = Answer::decode(&long.encode()) else { panic!("decodes") };
        assert_eq!(text, "ö".repeat(TEXT_BYTES_MAX / 2));
        let escape = Answer::Refused { code: RefusalCode::Stopping, text: "a\x1b[2Jb".into() };
        let Ok(Answer::Refused { text, .. }) = Answer::decode(&escape.encode()) else { panic!("decodes") };
        assert_eq!(text, "a[2Jb");
    }
}
