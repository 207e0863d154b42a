//! What DKIM keys cost at scale: `dkim advance` on a site of 10,000 domains with nothing due, and the making of keys, against the
//! `rsa` crate's own and against itself on one core. See docs/benchmarks.md.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and runs the programs that it compares")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark is no part of the program")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

#[allow(dead_code, reason = "others use the rest")]
mod support;
#[path = "support/processor.rs"]
mod processor;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use camino::Utf8Path;
use postseal::dkim;
use postseal::dkim::private::PrivateHalf;
use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState};
use postseal::secret::Secret;
use postseal::site;
use postseal::store::ledger::LedgerError;
use postseal::store::{SiteDir, Store, Writer};
use sha2::Digest as _;
use time::OffsetDateTime;

use processor::processor;
use support::{Times, Work, in_turn, shown};

const DOMAINS: usize = 10_000;

fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    advance(if full { 30 } else { 10 });
    keys(if full { 6 } else { 3 }, if full { 96 } else { 32 });
}

/// A site in a directory of its own, as `init` makes it.
struct Made {
    directory: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = Self { directory };
        made.postseal(None, &["init", "example.com", "--credentials", "file:/etc/mail/creds"]);
        made
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    fn place(&self) -> SiteDir {
        SiteDir::new(Utf8Path::from_path(&self.path()).unwrap())
    }

    /// Runs a command, on one core or on all.
    fn postseal(&self, cores: Option<&str>, arguments: &[&str]) {
        let program = env!("CARGO_BIN_EXE_postseal");
        let mut command = match cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores, program]);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).arg("--site").arg(self.path());
        let ended = command.stdin(Stdio::null()).output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    /// Adds domains to the settings, each in a file of its own.
    fn add_domains(&self, from: usize, count: usize, settings: &str) {
        fs::create_dir_all(self.path().join("domains")).unwrap();
        for number in from..from + count {
            let file = self.path().join(format!("domains/d{number}.example.toml"));
            fs::write(file, settings).unwrap();
        }
    }
}

/// Records two keys for each domain, both active for a day and seen, so that nothing is due. Their private halves are Ed25519 keys, for
/// 10,000 of RSA would take a quarter of an hour; nobody reads them.
fn record_keys(made: &Made) {
    let mut store = Writer::open(made.place(), |_| ()).unwrap();
    let since = OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp() - 86_400).unwrap();
    let place = store.key_place().in_bulk();
    let mut keys = Vec::new();
    for number in 0..DOMAINS {
        for algorithm in [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519] {
            let seed = sha2::Sha256::digest(format!("{number} {algorithm:?}")).to_vec();
            let half = PrivateHalf::of_seed(&Secret::new(seed)).unwrap();
            let stored = place.put(half.file()).unwrap();
            let public = match algorithm {
                // As long as it really is.
                DkimAlgorithm::Rsa => BASE64_STANDARD.encode(half.public().repeat(7).get(..294).unwrap()),
                DkimAlgorithm::Ed25519 => half.public().to_owned(),
            };
            let selector = format!("202611{}", algorithm.letter()).parse().unwrap();
            let domain = format!("d{number}.example").parse().unwrap();
            let key = DkimKey::new((domain, algorithm), selector, (public, stored), since);
            keys.push(DkimKey { state: DkimState::Active, seen: Some(since), ttl: Some(3600), ..key });
        }
    }
    place.catch_up().unwrap();
    let recorded = store.transact(|ledger| keys.iter().try_for_each(|key| ledger.add_dkim_key(key)));
    recorded.map_err(|error: LedgerError| error).unwrap();
    store.refresh_lock().unwrap();
}

fn advance(turns: usize) {
    let made = Made::new();
    made.add_domains(0, DOMAINS, "dkim = [\"rsa\", \"ed25519\"]\n");
    record_keys(&made);
    // `init` made keys for example.com, of which the name servers would be asked.
    let inventory = Store::open(made.place()).unwrap().inventory().unwrap();
    for key in inventory.dkim_keys.iter().filter(|key| key.seen.is_none()) {
        made.postseal(None, &["dkim", "confirm", &dkim::record_name(&key.selector, &key.domain)]);
    }
    let command = ["dkim", "advance"];
    let spent = Cell::new(0.0);
    let settings = || made.place().settings().unwrap().into_iter().map(Arc::new).collect::<Vec<_>>();
    let sources = settings();
    let store = Store::open(made.place()).unwrap();
    let sql = rusqlite::Connection::open(made.path().join("state/ledger.sqlite")).unwrap();
    let scan = "SELECT count(*) FROM dkim_key NOT INDEXED WHERE look_at <= unixepoch()";
    let [whole, start, read, parse, open, due, scanned] = in_turn(
        turns,
        [
            Work::new(1, || {
                let before = processor();
                made.postseal(None, &command);
                spent.set(spent.get() + processor() - before);
            }),
            Work::new(1, || made.postseal(None, &["--version"])),
            Work::new(1, settings),
            Work::new(1, || site::load(&sources).unwrap()),
            Work::new(1, || Writer::open(made.place(), |_| ()).unwrap()),
            Work::new(100, || store.ledger().dkim_due(OffsetDateTime::now_utc()).unwrap()),
            Work::new(5, || sql.query_row(scan, [], |row| row.get::<_, i64>(0)).unwrap()),
        ],
    );
    println!("dkim advance: {DOMAINS} domains in files of their own, 2 keys each, nothing due, by {turns} turns");
    println!("  the whole command                   {}", shown(whole.median()));
    println!("    of the processor's time           {}", shown(spent.get() / (turns + 1) as f64));
    println!("    over postseal --version           {}", whole.over(&start));
    println!("  in it: settings read                {}", shown(read.median()));
    println!("         settings parsed              {}", shown(parse.median()));
    println!("         site opened for writing      {}", shown(open.median()));
    println!("         what is due, by its index    {}", shown(due.median()));
    println!(
        "         the same by a scan           {}; over the index {}",
        shown(scanned.median()),
        scanned.over(&due)
    );
    let parts = Times::sum(&[(1.0, &read), (1.0, &parse), (1.0, &open), (1.0, &due)]);
    println!("  the whole command over these parts  {}", whole.over(&parts));
}

fn keys(turns: usize, count: usize) {
    let made = Made::new();
    let next = Cell::new(0);
    let add = |count: usize| {
        made.add_domains(next.get(), count, "dkim = [\"rsa\"]\n");
        next.set(next.get() + count);
    };
    let cores = thread::available_parallelism().unwrap().get();
    let [all, one, crate_all, nothing] = in_turn(
        turns,
        [
            Work::new(1, || {
                add(count);
                made.postseal(None, &["render"]);
            }),
            Work::new(1, || {
                add(count);
                made.postseal(Some("0"), &["render"]);
            }),
            Work::new(1, || generate(count, cores)),
            Work::new(1, || made.postseal(None, &["render"])),
        ],
    );
    let own = Times::sum(&[(1.0, &all), (-1.0, &nothing)]);
    let alone = Times::sum(&[(1.0, &one), (-1.0, &nothing)]);
    println!("DKIM keys of RSA-2048: {count} made by postseal render, less what it takes without, by {turns} turns");
    println!("  a key, {cores} cores                      {}", shown(own.median() / count as f64));
    println!("  a key, one core                     {}", shown(alone.median() / count as f64));
    println!("  a key, rsa crate alone, {cores} cores     {}", shown(crate_all.median() / count as f64));
    println!("  postseal over the crate             {}", own.over(&crate_all));
    println!("  one core over {cores}                     {}", alone.over(&own));
}

/// Makes keys by the `rsa` crate and nothing else, on so many threads.
fn generate(count: usize, cores: usize) {
    thread::scope(|scope| {
        for core in 0..cores {
            let share = count / cores + usize::from(core < count % cores);
            scope.spawn(move || {
                for _ in 0..share {
                    rsa::PrivateKey::new(&mut getrandom::SysRng, 2048).unwrap();
                }
            });
        }
    });
}
