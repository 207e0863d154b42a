//! One question to one server: UDP, and TCP where the answer needs it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// What an answer may have over UDP: it is not fragmented on any common path (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// What a datagram may have, whatever was asked for.
const DATAGRAM: usize = 4096;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mute {
    /// Nothing came back.
    Silent,
    /// There is no way from here, as to an IPv6 address without IPv6.
    Unreachable,
    /// What came back was no answer to the question.
    Garbled,
    /// The answer is longer than UDP allows, and does not come by TCP.
    NoTcp,
}

impl Mute {
    /// Says it in plain words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Silent => "does not answer",
            Self::Unreachable => "cannot be reached from here",
            Self::Garbled => "answers what nobody can read",
            Self::NoTcp => "does not answer over TCP",
        }
    }
}

/// Asks a server, twice if need be: the second time without EDNS, which a server or a firewall may not know.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    recursion: bool,
    patience: Duration,
) -> Result<Message, Mute> {
    let query = Query::query(name.clone(), kind);
    let mut last = Mute::Silent;
    for edns in [true, false] {
        let asked = Asked::new(&query, recursion, edns);
        match asked.over_udp(server, patience).await {
            Ok(answer) if answer.truncation => return asked.over_tcp(server, patience).await,
            Ok(answer) if edns && does_not_know_edns(answer.response_code) => {}
            Ok(answer) => return Ok(answer),
            Err(Mute::Unreachable) => return Err(Mute::Unreachable),
            Err(mute) => last = mute,
        }
    }
    Err(last)
}

fn does_not_know_edns(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS)
}

/// A question on its way, with a number that nobody else knows.
struct Asked<'a> {
    id: u16,
    query: &'a Query,
    octets: Vec<u8>,
}

impl<'a> Asked<'a> {
    fn new(query: &'a Query, recursion: bool, edns: bool) -> Self {
        let mut message = Message::query();
        message.metadata.recursion_desired = recursion;
        message.add_query(query.clone());
        if edns {
            let mut known = Edns::new();
            known.set_max_payload(PAYLOAD).set_version(0);
            message.set_edns(known);
        }
        // A name that was read can be written.
        Self { id: message.id, query, octets: message.to_vec().unwrap_or_default() }
    }

    /// The socket is connected: the kernel lets through only what comes from the server's address and port, and tells of a
    /// port that is closed.
    async fn over_udp(&self, server: SocketAddr, patience: Duration) -> Result<Message, Mute> {
        let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut is_garbled = false;
        let exchange = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(server).await?;
            socket.send(&self.octets).await?;
            let mut buffer = vec![0; DATAGRAM];
            loop {
                let length = socket.recv(&mut buffer).await?;
                match self.read(buffer.get(..length).unwrap_or_default()) {
                    Some(answer) => return Ok(answer),
                    // Another one may come still: who guesses numbers must not silence the server.
                    None => is_garbled = true,
                }
            }
        };
        match timeout(patience, exchange).await {
            Ok(outcome) => outcome.map_err(|error: io::Error| mute(&error)),
            Err(_) if is_garbled => Err(Mute::Garbled),
            Err(_) => Err(Mute::Silent),
        }
    }

    async fn over_tcp(&self, server: SocketAddr, patience: Duration) -> Result<Message, Mute> {
        let exchange = async {
            let mut stream = TcpStream::connect(server).await?;
            let length = u16::try_from(self.octets.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), self.octets.as_slice()].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(self.read(&answer))
        };
        match timeout(patience, exchange).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Mute::Garbled),
            Ok(Err(_)) | Err(_) => Err(Mute::NoTcp),
        }
    }

    /// Reads an answer to this very question.
    fn read(&self, octets: &[u8]) -> Option<Message> {
        let message = Message::from_vec(octets).ok()?;
        let is_answer =
            message.message_type == MessageType::Response && message.op_code == OpCode::Query && message.id == self.id;
        let is_error = !matches!(message.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let is_asked = match message.queries.as_slice() {
            [query] => query == self.query,
            // Who refuses may leave the question out.
            [] => is_error,
            _ => false,
        };
        (is_answer && is_asked).then_some(message)
    }
}

fn mute(error: &io::Error) -> Mute {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::TimedOut => Mute::Silent,
        _ => Mute::Unreachable,
    }
}
