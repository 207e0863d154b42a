//! Servers that do what no real one should, on addresses of loopback; the well-behaved are in the laboratory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;

const WANTED: &str = "v=DKIM1; k=rsa; p=MIIB";
const SELECTOR: &str = "s._domainkey.example.com.";

/// What a server says: datagrams, one after the other, of a question. The second argument tells what the way is.
type Says = Arc<dyn Fn(&Message, &str) -> Vec<Vec<u8>> + Send + Sync>;

/// Answers on loopback, at one port by UDP and by TCP; the addresses are resolver and authority at once.
struct Stub {
    port: u16,
    asked: Arc<Mutex<HashMap<(String, RecordType), usize>>>,
}

impl Stub {
    fn new(addresses: &[&str], says: impl Fn(&Message, &str) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let says: Says = Arc::new(says);
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let mut port = 0;
        for address in addresses {
            let udp = UdpSocket::bind((*address, port)).unwrap();
            port = udp.local_addr().unwrap().port();
            let tcp = TcpListener::bind((*address, port)).unwrap();
            let (count, say, place) = (Arc::clone(&asked), Arc::clone(&says), (*address).to_owned());
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let query = Message::from_vec(&buffer[..length]).unwrap();
                    let key = (query.queries[0].name().to_string(), query.queries[0].query_type());
                    *count.lock().unwrap().entry(key).or_default() += 1;
                    for datagram in say(&query, &place) {
                        udp.send_to(&datagram, from).unwrap();
                    }
                }
            });
            let say = Arc::clone(&says);
            std::thread::spawn(move || {
                for stream in tcp.incoming() {
                    let mut stream = stream.unwrap();
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).unwrap();
                    let mut query = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut query).unwrap();
                    if let Some(answer) = say(&Message::from_vec(&query).unwrap(), "tcp").first() {
                        stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                        stream.write_all(answer).unwrap();
                    }
                }
            });
        }
        Self { port, asked }
    }

    fn look(&self, name: &str) -> Answer {
        self.look_at_all(&[name]).remove(0)
    }

    fn look_at_all(&self, names: &[&str]) -> Vec<Answer> {
        let wanted = WantedRecord::Key { algorithm: "rsa", public: "MIIB".to_owned() };
        let questions: Vec<Question> =
            names.iter().map(|name| Question { name: (*name).to_owned(), wanted: wanted.clone() }).collect();
        let resolver: SocketAddr = ([127, 0, 0, 1], self.port).into();
        answer_all(Search::new(vec![resolver], self.port, Duration::from_millis(150)), &questions, &|_| {})
    }

    fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.asked.lock().unwrap().get(&(name.to_owned(), kind)).copied().unwrap_or_default()
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn answer_to(query: &Message, records: Vec<Record>) -> Message {
    let mut answer = Message::response(query.id, query.op_code);
    answer.metadata.authoritative = true;
    answer.add_query(query.queries[0].clone()).add_answers(records);
    answer
}

fn octets(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn txt(owner: &Name, text: &str) -> Record {
    Record::from_rdata(owner.clone(), 300, RData::TXT(TXT::new(vec![text.to_owned()])))
}

/// The way to `ns.example.com` at 127.0.0.1, and nothing else.
fn well(query: &Message) -> Message {
    let asked = &query.queries[0];
    let of = |data| vec![Record::from_rdata(asked.name().clone(), 300, data)];
    let is_zone = *asked.name() == name("example.com.");
    answer_to(
        query,
        match asked.query_type() {
            RecordType::NS if is_zone => of(RData::NS(NS(name("ns.example.com.")))),
            RecordType::SOA if is_zone => {
                of(RData::SOA(SOA::new(name("ns.example.com."), name("x.example.com."), 1, 1, 1, 1, 900)))
            }
            RecordType::A => of(RData::A(A::new(127, 0, 0, 1))),
            _ => Vec::new(),
        },
    )
}

fn is_txt(query: &Message) -> bool {
    query.queries[0].query_type() == RecordType::TXT
}

fn have_it(query: &Message) -> Message {
    answer_to(query, vec![txt(query.queries[0].name(), WANTED)])
}

fn lacking(answer: &Answer) -> Vec<(&str, &str)> {
    answer.lacking.iter().map(|(who, why)| (who.as_str(), why.as_str())).collect()
}

#[test]
fn an_answer_that_is_not_to_the_question_is_not_taken() {
    let stub = Stub::new(&["127.0.0.1"], |query, _| {
        if !is_txt(query) {
            return vec![octets(&well(query))];
        }
        let mut forged: Vec<Message> = (0..3).map(|_| have_it(query)).collect();
        forged[0].metadata.id ^= 1;
        forged[1].queries[0].set_name(name("t._domainkey.example.com."));
        forged[2].metadata.message_type = hickory_proto::op::MessageType::Query;
        forged.iter().chain([&well(query)]).map(octets).collect()
    });
    let answer = stub.look("s._domainkey.example.com");
    assert_eq!(answer.sighting, Sighting::Nowhere);
    assert_eq!(lacking(&answer), [("ns.example.com", "has no such record")]);
}

#[test]
fn a_server_that_knows_no_edns_is_asked_without_it() {
    for is_silent in [true, false] {
        let stub = Stub::new(&["127.0.0.1"], move |query, _| {
            if !is_txt(query) {
                return vec![octets(&well(query))];
            }
            if query.edns.is_none() {
                return vec![octets(&have_it(query))];
            }
            let code = ResponseCode::FormErr;
            if is_silent { Vec::new() } else { vec![octets(&Message::error_msg(query.id, query.op_code, code))] }
        });
        let seen = Sighting::Everywhere { ttl: 300, negative_ttl: 300 };
        assert_eq!(stub.look("s._domainkey.example.com").sighting, seen, "silent: {is_silent}");
    }
}

#[test]
fn a_long_answer_that_does_not_come_by_tcp_is_none() {
    for (by_tcp, expected) in [(true, None), (false, Some("does not answer over TCP"))] {
        let stub = Stub::new(&["127.0.0.1"], move |query, way| match way {
            "tcp" if by_tcp => vec![octets(&have_it(query))],
            "tcp" => Vec::new(),
            _ if is_txt(query) => {
                // The record is whole, and there may be another.
                let mut answer = have_it(query);
                answer.metadata.truncation = true;
                vec![octets(&answer)]
            }
            _ => vec![octets(&well(query))],
        });
        let answer = stub.look("s._domainkey.example.com");
        assert_eq!(lacking(&answer).first().map(|(_, why)| *why), expected);
        assert_eq!(matches!(answer.sighting, Sighting::Everywhere { .. }), by_tcp);
    }
}

#[test]
fn what_nobody_can_read_is_told_and_stops_nothing() {
    let cut = |query: &Message, at: usize| octets(&have_it(query))[..at].to_vec();
    let stub = Stub::new(&["127.0.0.1"], move |query, _| {
        if !is_txt(query) {
            return vec![octets(&well(query))];
        }
        let mut pointer = octets(&have_it(query))[..12].to_vec();
        pointer.extend([0xc0, 12, 0, 16, 0, 1]);
        vec![Vec::new(), vec![0; 3], cut(query, 11), cut(query, 40), pointer, vec![0xff; 1500]]
    });
    let answer = stub.look("s._domainkey.example.com");
    assert_eq!(answer.sighting, Sighting::Unknown);
    assert_eq!(lacking(&answer), [("ns.example.com", "answers what nobody can read")]);
}

#[test]
fn a_name_in_an_answer_is_shown_in_one_short_harmless_line() {
    let stub = Stub::new(&["127.0.0.1"], |query, _| {
        let asked = &query.queries[0];
        if asked.query_type() == RecordType::NS && *asked.name() == name("example.com.") {
            let hostile = Name::from_labels(vec![&b"\x1b[2Jns\n\xe2\x80\xae"[..], &[b'x'; 63], &[b'x'; 63]]).unwrap();
            return vec![octets(&answer_to(
                query,
                vec![Record::from_rdata(asked.name().clone(), 1, RData::NS(NS(hostile)))],
            ))];
        }
        vec![octets(&answer_to(query, Vec::new()))]
    });
    let answer = stub.look("s._domainkey.example.com");
    let [(who, why)] = lacking(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!(why, "has no address");
    assert!(who.len() < 100 && who.chars().all(|c| c.is_ascii_graphic()), "{who:?}");
}

#[test]
fn aliases_end_somewhere_and_a_zone_has_only_so_many_servers() {
    let endless = Stub::new(&["127.0.0.1"], |query, _| {
        let asked = &query.queries[0];
        if !is_txt(query) {
            return vec![octets(&well(query))];
        }
        let target = name("x.").append_domain(asked.name()).unwrap_or_else(|_| name("example.com."));
        vec![octets(&answer_to(query, vec![Record::from_rdata(asked.name().clone(), 1, RData::CNAME(CNAME(target)))]))]
    });
    let answer = endless.look("s._domainkey.example.com");
    assert_eq!(answer.sighting, Sighting::Nowhere);
    assert!(lacking(&answer)[0].1.starts_with("is an alias of an alias"), "{answer:?}");

    let crowd = Stub::new(&["127.0.0.1"], |query, _| {
        let asked = &query.queries[0];
        let server = |number| RData::NS(NS(name(&format!("n{number}.example."))));
        let records = (0..40).map(|number| Record::from_rdata(asked.name().clone(), 1, server(number))).collect();
        vec![octets(&answer_to(query, records))]
    });
    let answer = crowd.look("s._domainkey.example.com");
    assert_eq!((answer.sighting, lacking(&answer)[0].1), (Sighting::Unknown, "has more than 32 name servers"));
}

#[test]
fn one_address_without_the_record_is_enough_and_is_told() {
    let stub = Stub::new(&["127.0.0.1", "127.0.0.2"], |query, place| {
        let asked = &query.queries[0];
        let address = |last| Record::from_rdata(asked.name().clone(), 1, RData::A(A::new(127, 0, 0, last)));
        vec![octets(&match asked.query_type() {
            RecordType::A => answer_to(query, vec![address(1), address(2), address(3)]),
            RecordType::TXT if place == "127.0.0.1" => have_it(query),
            _ => well(query),
        })]
    });
    let answer = stub.look("s._domainkey.example.com");
    assert_eq!(lacking(&answer), [("ns.example.com", "has no such record at 127.0.0.2")]);
}

#[test]
fn nothing_is_asked_twice_and_a_dead_server_is_waited_for_a_few_times_only() {
    let names: Vec<String> = (0..500).map(|number| format!("s{number}._domainkey.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stub = Stub::new(&["127.0.0.1"], |query, _| {
        let answer = if is_txt(query) { have_it(query) } else { well(query) };
        vec![octets(&answer)]
    });
    let answers = stub.look_at_all(&names);
    assert!(answers.iter().all(|answer| answer.lacking.is_empty()));
    for (name, kind) in
        [("example.com.", RecordType::SOA), ("example.com.", RecordType::NS), ("ns.example.com.", RecordType::A)]
    {
        assert_eq!(stub.asked(name, kind), 1, "{name} {kind}");
    }
    assert_eq!(stub.asked(SELECTOR.replacen('s', "s7", 1).as_str(), RecordType::TXT), 1);

    let dead =
        Stub::new(&["127.0.0.1"], |query, _| if is_txt(query) { Vec::new() } else { vec![octets(&well(query))] });
    let answers = dead.look_at_all(&names);
    assert!(answers.iter().all(|answer| lacking(answer) == [("ns.example.com", "does not answer")]));
    let tried = names.iter().filter(|name| dead.asked(&format!("{name}."), RecordType::TXT) > 0).count();
    assert!(tried <= 64, "{tried}");
}

#[test]
fn mx_records_are_asked_for_where_hosts_are_wanted() {
    let stub = Stub::new(&["127.0.0.1"], |query, _| {
        let asked = &query.queries[0];
        let mx = |host| Record::from_rdata(asked.name().clone(), 300, RData::MX(MX::new(10, name(host))));
        match asked.query_type() {
            RecordType::MX => vec![octets(&answer_to(query, vec![mx("A.example.net."), mx("b.example.net.")]))],
            _ => vec![octets(&well(query))],
        }
    });
    let look = |hosts: &[&str]| {
        let wanted = WantedRecord::Mx(hosts.iter().map(|host| host.parse().unwrap()).collect());
        let question = Question { name: "m.example.com".to_owned(), wanted };
        let resolver: SocketAddr = ([127, 0, 0, 1], stub.port).into();
        answer_all(Search::new(vec![resolver], stub.port, Duration::from_millis(150)), &[question], &|_| {}).remove(0)
    };
    let there = Sighting::Everywhere { ttl: 300, negative_ttl: 300 };
    assert_eq!(look(&["a.example.net", "b.example.net"]).sighting, there);
    let answer = look(&["a.example.net"]);
    assert_eq!(answer.sighting, Sighting::Nowhere);
    assert_eq!(answer.lacking[0].1, "has an MX record that is to go");
}
