//! What a user of a long list costs: `postseal user import`, the real command, against the cryptography and the files alone,
//! against itself on two cores, and against other programs. See docs/benchmarks.md.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and runs the programs that it compares")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark is no part of the program")]

#[allow(dead_code, reason = "others use the rest")]
mod support;
#[path = "support/processor.rs"]
mod processor;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use postseal::pki::bundle::ITERATIONS;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as ECDSA, EcdsaKeyPair};
use sha2::Digest as _;

use processor::processor;
use support::{Times, Work, in_turn, shown};

/// How many users are recorded, and brought to the disk, at once.
const BATCH: u32 = 64;

fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    // Of 10,000, or of as many as a quick look takes.
    let (turns, users, few, many) = if full { (10, 1_000, 1_000, 10_000) } else { (6, 256, 200, 2_000) };
    speed(turns, users);
    memory(few, many);
    against_others(if full { 50 } else { 15 });
}

/// A site whose accounts are kept elsewhere, so that no password is hashed, and lists of users whom it does not know.
struct Site {
    directory: tempfile::TempDir,
    number: Cell<u32>,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let site = Self { directory, number: Cell::new(0) };
        let made = site.postseal(&["init", "example.com", "--credentials", "file:/etc/mail/creds"]).wait().unwrap();
        assert!(made.success(), "postseal init");
        site
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    fn postseal(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
        command.args(arguments).arg("--site").arg(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Begins an import of so many new users; returns the last one's address, too.
    fn begin(&self, users: u32, threads: &str) -> (Child, String) {
        let first = self.number.replace(self.number.get() + users);
        let address = |number: u32| format!("user{number}@example.com");
        let list = self.directory.path().join("users.csv");
        let lines: String = (first..first + users).map(|number| address(number) + "\n").collect();
        fs::write(&list, "address\n".to_owned() + &lines).unwrap();
        let child = self.postseal(&["user", "import", list.to_str().unwrap(), "--jobs", threads]);
        (child, address(first + users - 1))
    }

    fn import(&self, users: u32, threads: &str) {
        assert!(self.begin(users, threads).0.wait().unwrap().success(), "postseal user import");
    }
}

fn speed(turns: usize, users: u32) {
    let (site, floor) = (Site::new(), Floor::new());
    let mut spent = [0.0; 3];
    let [mut one, mut single, mut alone] = [0.0; 3];
    let counted = |spent: &mut f64, work: &dyn Fn()| {
        let before = processor();
        work();
        *spent += processor() - before;
    };
    let [start, own, two, raw] = in_turn(
        turns,
        [
            // What a list costs however short it is: the CA is opened, the site rendered.
            Work::new(1, || counted(&mut one, &|| site.import(1, "1"))),
            Work::new(1, || counted(&mut single, &|| site.import(users + 1, "1"))),
            Work::new(1, || site.import(users + 1, "2")),
            Work::new(1, || counted(&mut alone, &|| floor.users(users))),
        ],
    );
    spent[0] = (single - one) / alone;
    let users = f64::from(users);
    let each = |times: &Times| Times::sum(&[(1.0 / users, times), (-1.0 / users, &start)]);
    let (own, two, raw) = (each(&own), each(&two), Times::sum(&[(1.0 / users, &raw)]));
    println!("bulk: user import of {users} users with P-256 keys, mail passwords kept elsewhere, by {turns} turns");
    println!("  a user, one thread                  {}", shown(own.median()));
    println!("  a user, two threads                 {}", shown(two.median()));
    println!("  the cryptography and files alone    {}", shown(raw.median()));
    println!("  one thread over them                {}", own.over(&raw));
    println!("    the fastest tenth of each         {:.2}", own.fastest() / raw.fastest());
    println!("    of the processor's time           {:.2}", spent[0]);
    println!("  one thread over two                 {}", own.over(&two));
    println!("    the fastest tenth of each         {:.2}", own.fastest() / two.fastest());
}

/// The cryptography of one user, each by the fastest code among the program's own crates, and the files that they are given.
struct Floor {
    directory: tempfile::TempDir,
    number: Cell<u32>,
    random: SystemRandom,
    pair: EcdsaKeyPair,
    key: Vec<u8>,
}

const PASSWORD: &[u8] = b"abcdef-abcdef-abcdef-abcdef";

/// In octets, about: a certificate, the three of a bundle, the bundle.
const CERTIFICATE: [u8; 600] = [1; 600];
const CERTIFICATES: [u8; 1_700] = [2; 1_700];
const BUNDLE: [u8; 2_480] = [3; 2_480];
const SITE_CA: [u8; 745] = [4; 745];

impl Floor {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA, document.as_ref(), &random).unwrap();
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { directory, number: Cell::new(0), random, pair, key: document.as_ref().to_vec() }
    }

    fn users(&self, users: u32) {
        for user in 1..=users {
            self.cryptography();
            self.files();
            if user % BATCH == 0 || user == users {
                let directory = File::open(self.directory.path()).unwrap();
                // What must be on the disk before the ledger is written, and the ledger.
                rustix::fs::syncfs(&directory).unwrap();
            }
        }
    }

    fn cryptography(&self) {
        for _ in 0..2 {
            std::hint::black_box(EcdsaKeyPair::generate_pkcs8(&ECDSA, &self.random).unwrap());
        }
        std::hint::black_box(EcdsaKeyPair::from_pkcs8(&ECDSA, &self.key, &self.random).unwrap());
        for _ in 0..3 {
            std::hint::black_box(self.pair.sign(&self.random, &CERTIFICATE).unwrap());
        }
        for _ in 0..2 {
            let scheme =
                pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &[1; 16], [2; 16]);
            std::hint::black_box(scheme.unwrap().encrypt_in_place(PASSWORD, &mut [0; 16], 1).unwrap().to_vec());
        }
        let first = sha2::Sha256::digest([0x41; 3 * 64]);
        std::hint::black_box((1..ITERATIONS).fold(first, |hash, _| sha2::Sha256::digest(hash)));
        for clear in [self.key.as_slice(), &CERTIFICATES] {
            let mut buffer = clear.to_vec();
            buffer.resize(clear.len() + 16, 0);
            let cipher = cbc::Encryptor::<aes::Aes256>::new(&[3; 32].into(), &[4; 16].into());
            std::hint::black_box(cipher.encrypt_padded::<Pkcs7>(&mut buffer, clear.len()).unwrap().to_vec());
        }
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[5; 32]);
        std::hint::black_box(ring::hmac::sign(&key, &BUNDLE));
    }

    /// As the import leaves them: two files in a directory of the device, in one of the user; the password in another.
    fn files(&self) {
        let user = format!("user{}@example.com", self.number.replace(self.number.get() + 1));
        let (given, passwords) =
            (self.directory.path().join("handout").join(&user), self.directory.path().join("passwords").join(&user));
        fs::create_dir_all(given.join("default")).unwrap();
        fs::create_dir_all(&passwords).unwrap();
        let bundle = given.join("default").join(format!("{user}.p12"));
        for (path, content) in [
            (bundle, BUNDLE.as_slice()),
            (given.join("default/site-ca.pem"), &SITE_CA),
            (passwords.join("default.p12-password"), PASSWORD),
        ] {
            File::create(path).unwrap().write_all(content).unwrap();
        }
    }
}

/// The most memory that an import of so many users had, in KiB: while it issues, and in all.
fn peak(users: u32) -> (f64, f64) {
    let site = Site::new();
    let (mut child, last) = site.begin(users, "2");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let last = site.path().join("handout").join(last);
    let (mut issuing, mut whole) = (0.0, 0.0);
    loop {
        // Zombies have no memory: the last look before the end counts.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        if let Some(now) = found {
            whole = now;
            if !last.exists() {
                issuing = now;
            }
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "postseal user import");
            return (issuing, whole);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn memory(few: u32, many: u32) {
    let ((few_issuing, few_whole), (many_issuing, many_whole)) = (peak(few), peak(many));
    let mib = |kib: f64| format!("{:.1} MiB", kib / 1024.0);
    println!("peak memory of user import, two threads: {few} and {many} users");
    println!(
        "  until the last user is recorded     {} and {}: {:.2}",
        mib(few_issuing),
        mib(many_issuing),
        many_issuing / few_issuing
    );
    println!(
        "  with what is rendered at the end    {} and {}: {:.2}",
        mib(few_whole),
        mib(many_whole),
        many_whole / few_whole
    );
}

/// How many users of a list are compared with one of another program's.
const USERS: u32 = 32;

fn against_others(turns: usize) {
    let (site, peers) = (Site::new(), Peers::new());
    let [start, own, openssl] = in_turn(
        turns,
        [
            Work::new(1, || site.import(1, "1")),
            Work::new(1, || site.import(USERS + 1, "1")),
            Work::new(2, || peers.openssl()),
        ],
    );
    let own = Times::sum(&[(1.0 / f64::from(USERS), &own), (-1.0 / f64::from(USERS), &start)]);
    println!("a user of user import, one thread, against others: one key, one certificate, a .p12, by {turns} turns");
    println!("  openssl genpkey, req, x509, pkcs12 of {ITERATIONS} iterations   {}", shown(openssl.median()));
    println!("  openssl over postseal               {}", openssl.over(&own));
    if have("certtool") {
        let begun = Instant::now();
        (0..turns).for_each(|_| peers.certtool());
        let each = begun.elapsed().as_secs_f64() / f64::from(u32::try_from(turns).unwrap());
        println!(
            "  certtool, .p12 of its own {} iterations   {}; over postseal {:.2}",
            peers.iterations(),
            shown(each),
            each / own.median()
        );
    } else {
        println!("  certtool is not installed");
    }
    println!(
        "  easy-rsa is {}",
        if have("easyrsa") || Path::new("/usr/share/easy-rsa").exists() {
            "not compared: it runs the same openssl commands"
        } else {
            "not installed"
        }
    );
}

fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Other programs, each with a CA whose key is not encrypted.
struct Peers {
    directory: tempfile::TempDir,
}

impl Peers {
    fn new() -> Self {
        let peers = Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        let put = |name: &str, text: &str| fs::write(peers.directory.path().join(name), text).unwrap();
        put("password", "abcdef-abcdef-abcdef-abcdef\n");
        put(
            "extensions",
            "basicConstraints = critical, CA:false\nkeyUsage = critical, digitalSignature\n\
             extendedKeyUsage = clientAuth, emailProtection\nsubjectAltName = email:user@example.com\n",
        );
        put(
            "template",
            "cn = user@example.com\nunit = laptop\nemail = user@example.com\nexpiration_days = 365\n\
             signing_key\ntls_www_client\nemail_protection_key\n",
        );
        peers.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=CA -days 365");
        peers
    }

    fn run(&self, command: &str) {
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().unwrap());
        program.args(words).current_dir(self.directory.path());
        let status = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{command}");
    }

    fn openssl(&self) {
        self.run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out user.key");
        self.run("openssl req -new -key user.key -subj /CN=user@example.com/OU=laptop -out user.csr");
        self.run("openssl x509 -req -in user.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 365 -extfile extensions -out user.pem");
        self.run(&format!(
            "openssl pkcs12 -export -inkey user.key -in user.pem -certfile ca.pem -name user -iter {ITERATIONS} \
             -passout file:password -out user.p12"
        ));
    }

    fn certtool(&self) {
        self.run("certtool --generate-privkey --ecc --curve secp256r1 --no-text --outfile user.key");
        self.run(
            "certtool --generate-certificate --load-privkey user.key --load-ca-certificate ca.pem --load-ca-privkey ca.key \
             --template template --no-text --outfile user.pem",
        );
        self.run(
            "certtool --to-p12 --load-privkey user.key --load-certificate user.pem --load-ca-certificate ca.pem --p12-name user \
             --password abcdef-abcdef-abcdef-abcdef --outder --outfile certtool.p12",
        );
    }

    /// How often certtool iterates, which it does not let anybody choose.
    fn iterations(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args("pkcs12 -in certtool.p12 -passin file:password -info -noout".split_whitespace());
        let told = openssl.current_dir(self.directory.path()).output().unwrap().stderr;
        let told = String::from_utf8_lossy(&told).into_owned();
        let number = told.lines().find_map(|line| line.split("Iteration ").nth(1));
        number.and_then(|number| number.split([',', ' ']).next()).unwrap_or("unknown").to_owned()
    }
}
