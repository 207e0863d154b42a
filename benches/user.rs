//! What one user costs: two keys, three certificates and a .p12 file, against the openssl commands and against the cryptography
//! alone. See docs/benchmarks.md.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and runs the program that it compares with"
)]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark is no part of the program")]

mod support;

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use camino::Utf8Path;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use postseal::env::{Env as _, System};
use postseal::keys::{KeyKind, PrivateKey};
use postseal::names::{DeviceName, HostName, MailAddress, Serial};
use postseal::password;
use postseal::pki::Certificate;
use postseal::pki::bundle::{Bundle, BundleSalts, ITERATIONS, Protection, SALT_OCTETS};
use postseal::pki::issue::{self, Authority, ClientRequest, ClientSerials};
use postseal::secret::Secret;
use postseal::store::ledger::{ClientIssuer, NewCertificate, NewClient};
use postseal::store::{Passphrase, SiteDir, Writer};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as ECDSA, EcdsaKeyPair};
use sha2::Digest as _;

use support::{Times, Work, in_turn, shown};

/// One in each turn, so that a turn is over before the machine turns to something else.
const USERS: usize = 1_000;

/// The iterations that OpenSSL writes.
const COMPARED: u32 = 2_048;

fn main() {
    let site = Site::new();
    against_the_cryptography(&site);
    against_openssl(&site);
    on_disk(&site);
    apart(&site);
}

/// A site CA whose key is open.
struct Site {
    key: PrivateKey,
    ca: Certificate,
    device: DeviceName,
}

/// What one user is given, and what the ledger keeps.
struct Made {
    address: MailAddress,
    password: Secret,
    p12: Secret,
    recorded: NewCertificate,
    whose: NewClient,
}

fn octets<const N: usize>() -> [u8; N] {
    System.random(N).unwrap().expose().try_into().unwrap()
}

fn serial() -> Serial {
    Serial::from_random(octets())
}

impl Site {
    fn new() -> Self {
        let key = System.generate_key(KeyKind::P256).unwrap();
        let hosts: [HostName; 1] = ["mail.example.com".parse().unwrap()];
        let ca = issue::site_ca("Example Mail CA", &hosts, &key, serial(), System.now()).unwrap();
        Self { key, ca, device: "laptop".parse().unwrap() }
    }

    /// Does what `user add` does for a new device, but for the files, the ledger and the mail password.
    fn user(&self, number: u32, protection: Protection, iterations: u32) -> Made {
        let address: MailAddress = format!("user{number}@example.com").parse().unwrap();
        let key = System.generate_key(KeyKind::P256).unwrap();
        let issuing_key = System.generate_key(KeyKind::P256).unwrap();
        let serials = ClientSerials { leaf: serial(), issuing: serial(), twin: serial() };
        let request = ClientRequest { address: &address, device: &self.device, key: key.public(), days: None };
        let authority = Authority::new(&self.ca, &self.key).unwrap();
        let made =
            issue::client(&request, issuing_key, serials, &authority, System.now(), issue::EmptyCrl::Omitted).unwrap();
        let password = password::generate(&System.random(password::RANDOM_OCTETS).unwrap());
        let bundle = Bundle {
            key: &key,
            leaf: &made.leaf,
            chain: &[&made.issuing, &self.ca],
            friendly_name: &format!("{address} {}", self.device),
        };
        let salts = BundleSalts::from_random(octets::<SALT_OCTETS>());
        let p12 = bundle.encode_iterated(protection, &password, &salts, iterations).unwrap();
        let facts = made.leaf.facts();
        let recorded = NewCertificate {
            serial: serials.leaf,
            pem: made.leaf.pem(),
            fingerprint: made.leaf.fingerprint(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        let whose = NewClient {
            address: address.clone(),
            device: self.device.clone(),
            issuer: ClientIssuer::Own { issuing: made.issuing.pem(), twin: made.twin.pem(), crl: None },
        };
        Made { address, password, p12, recorded, whose }
    }
}

/// Counts the users, so that each has an address of its own.
struct Counter(u32);

impl Counter {
    fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }
}

fn against_the_cryptography(site: &Site) {
    let floor = Floor::new(site);
    let mut number = Counter(0);
    let [own, generate, load, sign, pbkdf2, kdf, aes_key, aes_certificates, mac] = in_turn(
        USERS,
        [
            Work::new(1, || site.user(number.next(), Protection::Modern, COMPARED)),
            Work::new(1, || EcdsaKeyPair::generate_pkcs8(&ECDSA, &floor.random).unwrap()),
            Work::new(1, || EcdsaKeyPair::from_pkcs8(&ECDSA, &floor.key, &floor.random).unwrap()),
            Work::new(1, || floor.pair.sign(&floor.random, &floor.certificate).unwrap()),
            Work::new(1, || floor.pbkdf2()),
            Work::new(1, Floor::kdf),
            Work::new(1, || Floor::aes(&floor.key)),
            Work::new(1, || Floor::aes(&floor.certificates)),
            Work::new(1, || floor.mac()),
        ],
    );
    let items = [
        ("P-256 key pair", 2.0, &generate),
        ("P-256 key read by ring, to sign with it", 1.0, &load),
        ("ECDSA signature", 3.0, &sign),
        ("PBKDF2-HMAC-SHA256, 2048 iterations", 2.0, &pbkdf2),
        ("PKCS#12 derivation, SHA-256, 2048 iterations", 1.0, &kdf),
        ("AES-256-CBC of the key", 1.0, &aes_key),
        ("AES-256-CBC of the certificates", 1.0, &aes_certificates),
        ("HMAC-SHA256 of the whole", 1.0, &mac),
    ];
    let sum = Times::sum(&items.map(|(_, count, times)| (count, times)));
    println!("user: two P-256 keys, three certificates and a .p12 in memory, by {USERS} users in one process");
    println!("  .p12 of {COMPARED} iterations             {}", shown(own.median()));
    println!("  the cryptography alone              {}", shown(sum.median()));
    for (name, count, times) in &items {
        let (each, share) = (times.median(), 100.0 * count * times.median() / sum.median());
        println!("    {name:<46} {count:>2} x {:>9}  {share:>4.1} %", shown(each));
    }
    println!("  postseal over its cryptography      {}", own.over(&sum));
    let fastest: f64 = items.iter().map(|(_, count, times)| count * times.fastest()).sum();
    println!("    the fastest tenth of each         {:.2}", own.fastest() / fastest);
}

fn against_openssl(site: &Site) {
    let peer = Peer::new(site);
    let [mut compared, mut modern, mut apple] = [0; 3].map(Counter);
    let [own, modern, apple, openssl] = in_turn(
        50,
        [
            Work::new(20, || site.user(compared.next(), Protection::Modern, COMPARED)),
            Work::new(4, || site.user(modern.next(), Protection::Modern, ITERATIONS)),
            Work::new(4, || site.user(apple.next(), Protection::Apple, ITERATIONS)),
            Work::new(1, || peer.user()),
        ],
    );
    println!("user against openssl genpkey, req, x509, pkcs12: one key, one certificate, by 50 turns");
    println!("  openssl, .p12 of {COMPARED} iterations    {}", shown(openssl.median()));
    println!("  openssl over postseal               {}", openssl.over(&own));
    let as_shipped = |name, times: &Times| {
        println!("  {name}       {}; openssl at {COMPARED} over it {}", shown(times.median()), openssl.over(times));
    };
    as_shipped("as shipped, 10,000 iterations", &modern);
    as_shipped("as shipped, form for Apple   ", &apple);
}

/// The openssl commands that make a key, a request, a certificate and a .p12 file. Their CA's key is not encrypted.
struct Peer {
    directory: PathBuf,
}

impl Peer {
    fn new(site: &Site) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openssl");
        fs::create_dir_all(&directory).unwrap();
        let put = |name: &str, text: &[u8]| fs::write(directory.join(name), text).unwrap();
        put("ca.pem", site.ca.pem().as_bytes());
        put("ca.key", site.key.to_pem().expose());
        put("password", b"abcdef-abcdef-abcdef-abcdef\n");
        put(
            "extensions",
            b"basicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n\
              extendedKeyUsage = clientAuth, emailProtection\nsubjectAltName = email:user@example.com\n\
              subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n",
        );
        Self { directory }
    }

    fn user(&self) {
        for command in [
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out user.key",
            "req -new -key user.key -subj /CN=user@example.com/OU=laptop -out user.csr",
            "x509 -req -in user.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 365 -extfile extensions -out user.pem",
            "pkcs12 -export -inkey user.key -in user.pem -certfile ca.pem -name user -iter 2048 \
             -passout file:password -out user.p12",
        ] {
            let mut openssl = Command::new("openssl");
            openssl.args(command.split_whitespace()).current_dir(&self.directory);
            let status = openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "openssl {command}");
        }
    }
}

/// The cryptography that a user needs, each by the fastest code among the program's own crates.
struct Floor {
    random: SystemRandom,
    pair: EcdsaKeyPair,
    /// As many octets as are signed.
    certificate: Vec<u8>,
    /// As many octets as a key has.
    key: Vec<u8>,
    /// As many octets as the certificates of a .p12 file have.
    certificates: Vec<u8>,
}

const PASSWORD: &[u8] = b"abcdef-abcdef-abcdef-abcdef";

impl Floor {
    fn new(site: &Site) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA, document.as_ref(), &random).unwrap();
        let ca = site.ca.der();
        Self { random, pair, certificate: ca.to_vec(), key: document.as_ref().to_vec(), certificates: ca.repeat(3) }
    }

    /// PBES2 with next to nothing to encrypt: ring's own PBKDF2 takes half as long again.
    fn pbkdf2(&self) -> Vec<u8> {
        let scheme = pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(COMPARED, &[1; 16], [2; 16]);
        scheme.unwrap().encrypt_in_place(PASSWORD, &mut [0; 16], self.key.len().min(1)).unwrap().to_vec()
    }

    /// The hashes of RFC 7292 §B.2: a block for the purpose, one for the salt, one for the password; then 32 octets each.
    fn kdf() -> sha2::digest::Output<sha2::Sha256> {
        let first = sha2::Sha256::digest([0x41; 3 * 64]);
        (1..COMPARED).fold(first, |hash, _| sha2::Sha256::digest(hash))
    }

    fn aes(clear: &[u8]) -> Vec<u8> {
        let mut buffer = clear.to_vec();
        buffer.resize(clear.len() + 16, 0);
        let cipher = cbc::Encryptor::<aes::Aes256>::new(&[3; 32].into(), &[4; 16].into());
        cipher.encrypt_padded::<Pkcs7>(&mut buffer, clear.len()).unwrap().to_vec()
    }

    fn mac(&self) -> ring::hmac::Tag {
        ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[5; 32]), &self.certificates)
    }
}

/// How often `strace -c -e fsync,fdatasync` counts the system brought something to the disk for one user.
const SYNCS: u32 = 10;

fn on_disk(site: &Site) {
    let guard = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = Utf8Path::from_path(guard.path()).unwrap();
    let mut store = Writer::create(SiteDir::new(directory.join("site")), |_| {}).unwrap();
    let plain = directory.join("plain");
    let mut number = Counter(0);
    let [own, syncs] = in_turn(
        20,
        [
            Work::new(5, || record(site, &site.user(number.next(), Protection::Modern, ITERATIONS), &mut store)),
            Work::new(5, || {
                for _ in 0..SYNCS {
                    let mut file = fs::File::create(&plain).unwrap();
                    std::io::Write::write_all(&mut file, &[6; 4096]).unwrap();
                    file.sync_all().unwrap();
                }
            }),
        ],
    );
    println!("user on disk: the same as shipped, with handout, passphrase and ledger, by 20 turns of 5");
    println!("  as shipped                          {}", shown(own.median()));
    println!("  {SYNCS} times 4 KiB, each synced         {}", shown(syncs.median()));
    println!("  postseal over the syncs             {}", own.over(&syncs));
}

/// Writes what `user add` writes, but for the mail password and what is rendered.
fn record(site: &Site, made: &Made, store: &mut Writer) {
    let (address, device) = (&made.address, &site.device);
    store.put_passphrase(Passphrase::Device(address, device), &made.password).unwrap();
    store.write_handout(address, device, &format!("{}.p12", address.path_component()), &made.p12).unwrap();
    store.write_handout(address, device, "site-ca.pem", &Secret::from(site.ca.pem())).unwrap();
    let now = System.now();
    let recorded = store.transact(|ledger| {
        ledger.add_user(address, now)?;
        ledger.set_senders(address, &[])?;
        ledger.add_client_certificate(&made.recorded, &made.whose)?;
        let detail = serde_json::json!({ "device": device, "serial": made.recorded.serial.to_string() });
        ledger.record_event(now, "client-certificate-issued", address.as_str(), &detail)
    });
    recorded.unwrap();
}

fn apart(site: &Site) {
    let passphrase = Secret::from("abcdef-abcdef-abcdef-abcdef".to_owned());
    let encrypted = site.key.encrypt(&passphrase, octets(), octets()).unwrap();
    let [unlock, hash, pbkdf2] = in_turn(
        5,
        [
            Work::new(1, || PrivateKey::decrypt(&encrypted, &passphrase).unwrap()),
            Work::new(1, || password::hash(&passphrase, octets()).unwrap()),
            Work::new(1, || {
                let (count, mut key) = (NonZeroU32::new(postseal::keys::PASSPHRASE_ITERATIONS).unwrap(), [0; 32]);
                ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, count, &[1; 16], PASSWORD, &mut key);
                key
            }),
        ],
    );
    println!("apart, in none of the above");
    println!(
        "  the site CA's key opened, once      {}; ring's PBKDF2 over it {}",
        shown(unlock.median()),
        pbkdf2.over(&unlock)
    );
    println!("  bcrypt of a mail password           {}", shown(hash.median()));
}
