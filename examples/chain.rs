//! Asks a server by way of hickory's validator whether records are signed by a chain that begins at a root of the laboratory's own.
//!
//! chain ADDRESS ANCHOR NAME TYPE...   prints, for each name and type, `secure`, `insecure`, `bogus` or `nothing`
//!
//! `ANCHOR` is a file with the root's DNSKEY records. The laboratory's tests run it (`tests/lab/test_outside.py`).

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a program of the tests")]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::rr::RecordType;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, anchor, questions @ ..] = arguments.as_slice() else { return };
    let server = NameServerConfig::udp_and_tcp(address.parse::<IpAddr>().expect("an address"));
    let mut options = ResolverOpts::default();
    options.validate = true;
    options.use_hosts_file = ResolveHosts::Never;
    let anchors = TrustAnchors::from_file(Path::new(anchor)).expect("the root's keys");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .with_trust_anchor(Arc::new(anchors))
            .build()
            .expect("a resolver");
        for question in questions.chunks(2) {
            let [name, kind] = question else { continue };
            let kind: RecordType = kind.parse().expect("a type");
            println!("{name} {kind} {}", verdict(resolver.lookup(name.as_str(), kind).await, kind));
        }
    });
}

/// Returns the weakest proof of the records of that type: their signatures stand beside them.
fn verdict(answer: Result<Lookup, NetError>, kind: RecordType) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NetError::Dns(DnsError::DnssecBogus)) => return "bogus".to_owned(),
        Err(other) => return format!("{other:?}"),
    };
    let proofs = answer.answers().iter().filter(|record| record.record_type() == kind).map(|record| record.proof);
    match proofs.min() {
        Some(Proof::Secure) => "secure",
        Some(Proof::Insecure) => "insecure",
        Some(Proof::Bogus | Proof::Indeterminate) => "bogus",
        None => "nothing",
    }
    .to_owned()
}
