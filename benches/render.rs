//! Rendering and comparing a site of 1, 50 and 1,000 domains, in the library and as a command. See docs/benchmarks.md.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and runs the programs that it compares")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark is no part of the program")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use postseal::diag::Source;
use postseal::inventory::{DkimKey, Inventory};
use postseal::names::DomainName;
use postseal::plan::{difference, public_files};
use postseal::site::{Site, SpfPolicy};
use postseal::store::{SiteDir, lock};

use support::{Times, Work, in_turn, shown};

/// The golden case that the sites here are made from.
const FIFTY: &str = "golden/fifty-domains";

fn main() {
    let guard = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let top = Utf8Path::from_path(guard.path()).unwrap();
    let golden = SiteDir::new(FIFTY);
    let fifty = Case { settings: sources(&golden), inventory: golden.locked_inventory().unwrap().unwrap() };
    at_scale(&fifty.with_domains(1_000), &fifty.with_domains(10_000), &top.join("scale"));
    if std::env::args().any(|argument| argument == "scale") {
        return;
    }
    let [one, thousand] = [1, 1_000].map(|count| fifty.with_domains(count));
    in_library(&one, &fifty, &thousand);
    for (case, name) in [(&one, "1"), (&fifty, "50"), (&thousand, "1000")] {
        case.write(&SiteDir::new(top.join(name)));
    }
    as_command(top);
}

/// What a site is rendered from.
struct Case {
    settings: Vec<Arc<Source>>,
    inventory: Inventory,
}

type Files = BTreeMap<Utf8PathBuf, String>;

fn sources(site: &SiteDir) -> Vec<Arc<Source>> {
    let below = |path: &Utf8Path| path.strip_prefix(site.root()).unwrap().to_owned();
    let sources = site.settings().unwrap().into_iter();
    sources.map(|source| Arc::new(Source { path: below(&source.path), text: source.text })).collect()
}

impl Case {
    /// Reads settings, renders every file.
    fn render(&self) -> Files {
        let (site, _) = postseal::site::load(&self.settings).unwrap();
        public_files(&postseal::render::render(&site, &self.inventory, &[]).unwrap())
    }

    /// A site of the same host with so many domains, whose settings and keys are those of the case's over and over.
    fn with_domains(&self, count: usize) -> Self {
        let host = "[[host]]\nname = \"mail.hosting.example\"\nplatform = \"debian\"\naddresses = [\"203.0.113.10\"]\n";
        let mut main = format!("{host}[[domain]]\nname = \"hosting.example\"\n[aliases]\n");
        main.push_str("\"postmaster@hosting.example\" = \"alice@hosting.example\"\n");
        let name = |number: usize| format!("domain-{number:04}.example");
        let mut files = Vec::new();
        let mut keys = self.keys("hosting.example", "hosting.example");
        for (number, file) in
            (1..count).zip(self.settings.iter().filter(|file| file.path.starts_with("domains")).cycle())
        {
            let name = name(number);
            main.push_str(&format!("\"postmaster@{name}\" = \"postmaster@hosting.example\"\n"));
            let old = file.path.file_stem().unwrap();
            files.push(Arc::new(Source {
                path: format!("domains/{name}.toml").into(),
                text: file.text.replace(old, &name),
            }));
            keys.extend(self.keys(old, &name));
        }
        files.insert(0, Arc::new(Source { path: "postseal.toml".into(), text: main }));
        Self { settings: files, inventory: Inventory { dkim_keys: keys, ..self.inventory.clone() } }
    }

    /// The DKIM keys of a domain, for another.
    fn keys(&self, of: &str, other: &str) -> Vec<DkimKey> {
        let other: DomainName = other.parse().unwrap();
        let keys = self.inventory.dkim_keys.iter().filter(|key| key.domain.as_str() == of);
        keys.map(|key| DkimKey { domain: other.clone(), ..key.clone() }).collect()
    }

    /// Writes the site as its owner's CI has it, and beside it `copy/`, which is equal to its `golden/`.
    fn write(&self, site: &SiteDir) {
        for source in &self.settings {
            let path = site.path(&source.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &source.text).unwrap();
        }
        fs::write(site.path("postseal.lock"), lock::write(&self.inventory)).unwrap();
        site.write_golden(&self.render()).unwrap();
        let copied = Command::new("cp").args(["-r", "golden", "copy"]).current_dir(site.root()).status().unwrap();
        assert!(copied.success());
    }
}

/// What a provider's site costs, the settings being read: all zones, every file, and one domain that changed.
fn at_scale(thousand: &Case, ten_thousand: &Case, place: &Utf8Path) {
    let read = |case: &Case| postseal::site::load(&case.settings).unwrap().0;
    let (small, mut large) = (read(thousand), read(ten_thousand));
    let zones = |site: &Site, inventory: &Inventory| {
        postseal::records::zones(site, inventory)
            .iter()
            .map(|zone| postseal::dns::zone::write(zone).len())
            .sum::<usize>()
    };
    let files =
        |site: &Site, inventory: &Inventory| public_files(&postseal::render::render(site, inventory, &[]).unwrap());
    let [few_zones, many_zones, few_files, many_files] = in_turn(
        10,
        [
            Work::new(1, || zones(&small, &thousand.inventory)),
            Work::new(1, || zones(&large, &ten_thousand.inventory)),
            Work::new(1, || files(&small, &thousand.inventory)),
            Work::new(1, || files(&large, &ten_thousand.inventory)),
        ],
    );
    println!("render at scale: two DKIM keys for each domain, the settings read before, by 10 turns on one core");
    println!("  zones of 1,000 domains              {}", shown(few_zones.median()));
    println!(
        "  zones of 10,000 domains             {}; over those {}",
        shown(many_zones.median()),
        many_zones.over(&few_zones)
    );
    println!("  every file for 1,000 domains        {}", shown(few_files.median()));
    println!(
        "  every file for 10,000 domains       {}; over those {}",
        shown(many_files.median()),
        many_files.over(&few_files)
    );
    println!("  the most memory of this process     {}", peak());
    let site = SiteDir::new(place);
    fs::create_dir_all(place).unwrap();
    site.write_golden(&files(&large, &ten_thousand.inventory)).unwrap();
    let before = numbers(&site.path("golden/dns"));
    large.domains.last_mut().unwrap().spf = Some(SpfPolicy::Fail);
    site.write_golden(&files(&large, &ten_thousand.inventory)).unwrap();
    let after = numbers(&site.path("golden/dns"));
    let written = after.iter().filter(|(name, number)| before.get(*name) != Some(number)).count();
    println!("  zones written when one domain changed: {written} of {}", after.len());
    fs::remove_dir_all(place).unwrap();
}

/// Returns the most memory that the process held so far, as Linux tells it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
    peak.unwrap_or("not told by this system").to_owned()
}

/// Returns the number of each file of a directory: another one is another file.
fn numbers(directory: &Utf8Path) -> BTreeMap<std::ffi::OsString, u64> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).collect()
}

fn in_library(one: &Case, fifty: &Case, thousand: &Case) {
    let (golden, copy) = (fifty.render(), fifty.render());
    let other: Files = golden.iter().map(|(path, text)| (path.clone(), text.replace("postseal", "other"))).collect();
    let octets: usize = golden.values().map(String::len).sum();
    let [times_1, times_50, times_1000, same, differing, floor] = in_turn(
        30,
        [
            Work::new(10, || one.render()),
            Work::new(2, || fifty.render()),
            Work::new(1, || thousand.render()),
            Work::new(20, || difference(&golden, &copy)),
            Work::new(2, || difference(&other, &golden)),
            Work::new(20, || golden.values().map(String::clone).collect::<Vec<_>>()),
        ],
    );
    println!("render: settings read and all public files rendered, in memory, by 30 turns");
    println!("  1 domain                            {}", shown(times_1.median()));
    println!("  50 domains, {octets} octets           {}", shown(times_50.median()));
    println!("  1,000 domains                       {}", shown(times_1000.median()));
    println!("    the fastest tenth of them         {}", shown(times_1000.fastest()));
    println!("  each of 50 over each of 1           {}", Times::sum(&[(1.0 / 50.0, &times_50)]).over(&times_1));
    println!("  each of 1,000 over each of 50       {}", Times::sum(&[(1.0 / 20.0, &times_1000)]).over(&times_50));
    println!("  50 domains over a copy of the text  {}", times_50.over(&floor));
    println!("difference of 50 domains, in memory");
    println!(
        "  nothing differs                     {}; over a copy of the text {}",
        shown(same.median()),
        same.over(&floor)
    );
    println!(
        "  every file differs                  {}; over rendering {}",
        shown(differing.median()),
        differing.over(&times_50)
    );
}

fn as_command(top: &Utf8Path) {
    let postseal = |site: &'static str| move || run(env!("CARGO_BIN_EXE_postseal"), &["diff", "--site", site], top);
    let peer = |site: &'static str| move || run("diff", &["-r", "golden", "copy"], top.join(site));
    let [times_1, times_50, times_1000, start, peer_50, peer_1000] = in_turn(
        30,
        [
            Work::new(2, postseal("1")),
            Work::new(2, postseal("50")),
            Work::new(1, postseal("1000")),
            Work::new(2, || run(env!("CARGO_BIN_EXE_postseal"), &["--version"], top)),
            Work::new(2, peer("50")),
            Work::new(1, peer("1000")),
        ],
    );
    println!("postseal diff, the whole command, nothing differs, by 30 turns");
    println!("  1 domain                            {}", shown(times_1.median()));
    println!(
        "  50 domains                          {}; over postseal --version {}",
        shown(times_50.median()),
        times_50.over(&start)
    );
    println!("  1,000 domains                       {}", shown(times_1000.median()));
    println!("  each of 1,000 over each of 50       {}", Times::sum(&[(1.0 / 20.0, &times_1000)]).over(&times_50));
    println!(
        "  50 domains over diff -r             {}: of the same files, which it need not render",
        times_50.over(&peer_50)
    );
    println!("  1,000 domains over diff -r          {}", times_1000.over(&peer_1000));
}

fn run(program: &str, arguments: &[&str], directory: impl AsRef<Path>) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "{program} {arguments:?}");
}
