//! `user import`: everyone on the list has what they need, nobody has it twice, and a run that ends anywhere is resumed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test writes lists and runs programs")]

#[path = "support/pki.rs"]
mod pki;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use camino::Utf8Path;
use postseal::accounts_csv::List;
use postseal::inventory::Inventory;
use postseal::password;
use postseal::secret::Secret;
use postseal::store::{Passphrase, SiteDir, Store};
use proptest::prelude::*;

use surroundings::{Answer, postseal, site, snapshot};

/// Writes a list beside the site and imports it.
fn import(site: &Path, list: &str, options: &[&str]) -> Answer {
    let file = site.with_file_name("users.csv");
    fs::write(&file, list).unwrap();
    postseal(site, [&["user", "import", file.to_str().unwrap()], options].concat())
}

fn store(site: &Path) -> Store {
    Store::open(SiteDir::new(Utf8Path::from_path(site).unwrap())).unwrap()
}

/// Returns how many certificates, ever, each device has: `ADDRESS DEVICE`.
fn issued(inventory: &Inventory) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for certificate in &inventory.client_certificates {
        *counted.entry(format!("{} {}", certificate.address, certificate.device)).or_default() += 1;
    }
    counted
}

fn counts(answer: &Answer) -> [usize; 3] {
    let number = |word: &str| {
        let line = answer.out.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{answer:?}"));
        line.parse().unwrap()
    };
    ["issued: ", "already there: ", "bad lines: "].map(number)
}

fn external(site: &Path) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    let with = "accounts.external = { type = \"file\", path = \"/etc/mail/creds\" }";
    fs::write(file, text.replace("accounts = \"managed\"", with)).unwrap();
    assert_eq!(postseal(site, ["render"]).exit_code, 0);
}

const THREE: &str = "address,name,device,password\n\
                     bob@example.com,Bob,phone,\n\
                     bob@example.com,Bob,laptop,\n\
                     carol@example.com,\"Carol, C\",,correct horse\n";

#[test]
fn everyone_on_a_list_gets_what_they_need_and_a_second_run_issues_nothing() {
    let (_guard, site) = site();
    let answer = import(&site, THREE, &[]);
    assert_eq!((answer.exit_code, counts(&answer)), (0, [3, 0, 0]), "{answer:?}");
    let opened = store(&site);
    let inventory = opened.inventory().unwrap();
    let expected =
        ["alice@example.com default", "bob@example.com laptop", "bob@example.com phone", "carol@example.com default"];
    assert_eq!(issued(&inventory), expected.map(|device| (device.to_owned(), 1)).into());
    assert_eq!(inventory.users.len(), 3);
    let events = opened.ledger().events().unwrap();
    let told: Vec<_> = events.iter().filter(|event| event.what == "client-certificate-issued").collect();
    assert_eq!(told.len(), 4);
    assert_usable(&site, 10);
    drop(opened);

    let before = snapshot(&site);
    let again = import(&site, THREE, &[]);
    assert_eq!((again.exit_code, counts(&again)), (0, [0, 3, 0]), "{again:?}");
    assert!(snapshot(&site) == before, "a run that issues nothing changes nothing");
}

#[test]
fn a_second_run_needs_no_passphrase() {
    let (_guard, site) = site();
    assert_eq!(import(&site, THREE, &[]).exit_code, 0);
    fs::remove_file(site.join("state/ca.passphrase")).unwrap();
    assert_eq!(import(&site, THREE, &[]).exit_code, 0);
    let more = import(&site, &format!("{THREE}dave@example.com,,,\n"), &[]);
    assert!(more.exit_code == 2 && more.err.contains("error[ca-passphrase]"), "{more:?}");
}

/// A line of each kind of mistake, and good ones between.
const BAD: &str = "address,device\n\
                   bob@example.com,phone\n\
                   bob,phone\n\
                   bob@example.net,phone\n\
                   bob+eu@example.com,phone\n\
                   postmaster@example.com,phone\n\
                   BOB@example.com,phone\n\
                   carol@example.com,Carol's Phone\n\
                   dave@example.com\n\
                   \"eve@example.com,phone\n\
                   frank@example.com,\n";

#[test]
fn a_bad_line_is_told_with_its_place_and_stops_nothing() {
    let (_guard, site) = site();
    let answer = import(&site, BAD, &["--format", "json"]);
    assert_eq!(answer.exit_code, 1, "{answer:?}");
    let told: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(told, serde_json::json!({ "issued": 2, "already_there": 0, "bad_lines": 8, "archive": null }));
    let findings: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    let place = |finding: &serde_json::Value| format!("{}:{} {}", finding["line"], finding["column"], finding["code"]);
    let places: Vec<String> = findings.as_array().unwrap().iter().map(place).collect();
    assert_eq!(
        places,
        [
            "3:1 \"csv-name\"",
            "4:1 \"user-domain-unknown\"",
            "5:1 \"user-has-tag\"",
            "6:1 \"user-is-alias\"",
            "7:1 \"csv-duplicate\"",
            "8:19 \"csv-name\"",
            "9:1 \"csv-line\"",
            "10:1 \"csv-line\""
        ]
    );
    assert_eq!(findings[4]["notes"], serde_json::json!(["the other one is in line 2"]));
    let devices: Vec<String> = issued(&store(&site).inventory().unwrap()).into_keys().collect();
    assert_eq!(devices, ["alice@example.com default", "bob@example.com phone", "frank@example.com default"]);
}

#[test]
fn where_a_bad_line_is_to_stop_everything_nothing_is_written() {
    let (_guard, site) = site();
    let before = snapshot(&site);
    let answer = import(&site, BAD, &["--stop"]);
    assert_eq!((answer.exit_code, answer.out.as_str()), (2, ""), "{answer:?}");
    assert!(answer.err.contains("users.csv:8:19"), "{answer:?}");
    assert!(snapshot(&site) == before);
    assert_eq!(import(&site, THREE, &["--stop"]).exit_code, 0);
}

#[test]
fn what_is_said_of_many_bad_lines_stays_short() {
    let (_guard, site) = site();
    let answer = import(&site, &format!("address\n{}", "bob@example.net\n".repeat(5_000)), &[]);
    assert!(answer.exit_code == 1 && answer.out.contains("bad lines: 5000"), "{answer:?}");
    assert_eq!(answer.err.matches("error[").count(), 50);
    assert!(answer.err.contains("4950 more like it are not shown"), "{answer:?}");
}

#[test]
fn a_chosen_password_opens_the_account_and_others_are_made_and_none_is_said() {
    let (_guard, site) = site();
    let alices = fs::read(site.join("state/passwords/alice@example.com/password")).unwrap();
    let list = "address,device,password\n\
                alice@example.com,phone,\n\
                bob@example.com,phone,\"with \"\"quotes\"\", and comma\"\n\
                carol@example.com,phone,\n\
                dave@example.com,phone,short\n\
                erin@example.com,phone,one of two\n\
                erin@example.com,laptop,a different\n\
                erin@example.com,tablet,one of two\n";
    let answer = import(&site, list, &[]);
    assert_eq!((answer.exit_code, counts(&answer)), (1, [5, 0, 2]), "{answer:?}");
    let said = answer.out.clone() + &answer.err;
    for password in ["quotes", "short,", "short\n", "one of two", "a different"] {
        assert!(!said.contains(password), "{password}: {said}");
    }
    let opened = store(&site);
    let opens = |address: &str, password: &[u8]| {
        opened.ledger().opens(&address.parse().unwrap(), &Secret::new(password.to_vec())).unwrap()
    };
    assert!(opens("bob@example.com", b"with \"quotes\", and comma"));
    assert!(opens("erin@example.com", b"one of two"));
    assert!(opens("alice@example.com", &alices), "who has no password in the list keeps theirs");
    let made = fs::read(site.join("state/passwords/carol@example.com/password")).unwrap();
    assert!(opens("carol@example.com", &made));
    assert_eq!(fs::read(site.join("state/passwords/alice@example.com/password")).unwrap(), alices);
    assert!(password::judge(&Secret::new(made)).is_ok());
}

#[test]
fn where_the_administrator_keeps_the_accounts_no_password_is_made_or_taken() {
    let (_guard, site) = site();
    external(&site);
    let refused = import(&site, THREE, &[]);
    assert!(refused.exit_code == 2 && refused.err.contains("error[accounts-external]"), "{refused:?}");
    let answer = import(&site, "address\nbob@example.com\n", &[]);
    assert_eq!((answer.exit_code, counts(&answer)), (0, [1, 0, 0]), "{answer:?}");
    let names: Vec<_> = fs::read_dir(site.join("state/passwords/bob@example.com")).unwrap().collect();
    assert_eq!(names.len(), 1, "the password of the .p12 only: {names:?}");
}

#[test]
fn who_was_removed_is_issued_a_certificate_anew() {
    let (_guard, site) = site();
    assert_eq!(import(&site, THREE, &[]).exit_code, 0);
    assert_eq!(postseal(&site, ["user", "remove", "bob@example.com"]).exit_code, 0);
    let answer = import(&site, THREE, &[]);
    assert_eq!((answer.exit_code, counts(&answer)), (0, [2, 1, 0]), "{answer:?}");
    assert_usable(&site, 10);
}

#[test]
fn a_new_device_of_a_user_leaves_account_and_older_devices_alone() {
    let (_guard, site) = site();
    assert_eq!(postseal(&site, ["user", "add", "bob@example.com", "--sender", "sales@example.com"]).exit_code, 0);
    let answer = import(&site, "address,device\nbob@example.com,phone\n", &["--apple", "--days", "30", "--jobs", "1"]);
    assert_eq!((answer.exit_code, counts(&answer)), (0, [1, 0, 0]), "{answer:?}");
    let inventory = store(&site).inventory().unwrap();
    let bob = inventory.users.iter().find(|user| user.address.as_str() == "bob@example.com").unwrap();
    assert_eq!(bob.senders.len(), 1);
    assert!(site.join("handout/bob@example.com/phone/bob@example.com-apple.p12").exists());
    assert!(site.join("handout/bob@example.com/default/bob@example.com.p12").exists());
    let phone =
        inventory.client_certificates.iter().find(|certificate| certificate.device.as_str() == "phone").unwrap();
    assert_eq!((phone.not_after - phone.not_before).whole_days(), 30);
}

proptest! {
    /// Whatever another program writes as CSV reads back as itself.
    #[test]
    fn what_the_crate_csv_writes_is_read(rows in proptest::collection::vec(("\\PC{0,20}|[ ,;\"\r\n\ta-z]{0,12}", "[ -~]{8,20}"), 1..8)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["name", "password", "address"]).unwrap();
        for (number, (name, password)) in rows.iter().enumerate() {
            writer.write_record([name, password, &format!("user{number}@example.com")]).unwrap();
        }
        let text = Secret::new(writer.into_inner().unwrap());
        let mut list = List::read("users.csv".into(), &text).unwrap();
        let lines = list.take_lines();
        prop_assert_eq!(list.told(), []);
        prop_assert_eq!(lines.len(), rows.len());
        for (line, (name, password)) in lines.iter().zip(&rows) {
            prop_assert_eq!(list.name(line), name.as_str());
            prop_assert_eq!(line.password.as_ref().and_then(Secret::expose_str), Some(password.as_str()));
        }
    }
}

// The archive

#[test]
fn an_archive_holds_what_everyone_on_the_list_is_to_be_given() {
    let (guard, site) = site();
    let archive = guard.path().join("users.tar");
    let list = "address,name\nbob@example.com,\"Smith, Bob\"\nalice@example.com,Alice\n";
    let options = ["--archive", archive.to_str().unwrap(), "--with-passwords"];
    let answer = import(&site, list, &options);
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o7777, 0o600);
    let first = fs::read(&archive).unwrap();
    let held = unpacked(&first);
    assert_eq!(held.len(), 5, "a bundle and the CA for each, and the passwords");
    for (name, content) in held.iter().filter(|(name, _)| name.starts_with("handout/")) {
        assert_eq!(*content, fs::read(site.join(name)).unwrap(), "{name}");
    }
    let kept = |name: &str| fs::read_to_string(site.join("state/passwords").join(name)).unwrap();
    let row = |address: &str, name: &str| {
        let [p12, mail] = ["default.p12-password", "password"].map(|file| kept(&format!("{address}/{file}")));
        format!("{address},{name},default,{p12},{mail}\r\n")
    };
    let rows = row("alice@example.com", "Alice") + &row("bob@example.com", "\"Smith, Bob\"");
    let table = String::from_utf8(held["passwords.csv"].clone()).unwrap();
    assert_eq!(table, format!("address,name,device,p12_password,mail_password\r\n{rows}"));

    // At the same hour the same list gives the same octets.
    assert_eq!(import(&site, list, &options).exit_code, 0);
    assert!(fs::read(&archive).unwrap() == first);
    // Without being asked, it holds no password; who has what they were given is in it no more.
    fs::remove_dir_all(site.join("handout/alice@example.com")).unwrap();
    assert_eq!(import(&site, list, &options[..2]).exit_code, 0);
    let names: Vec<String> = unpacked(&fs::read(&archive).unwrap()).into_keys().collect();
    assert_eq!(
        names,
        ["handout/bob@example.com/default/bob@example.com.p12", "handout/bob@example.com/default/site-ca.pem"]
    );
    assert_eq!(fs::read_dir(guard.path()).unwrap().count(), 3, "site, list and archive");
}

/// Reads a tar; every file in it is its owner's only, and nobody's by name.
fn unpacked(octets: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(octets);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().to_str().unwrap().to_owned(), Vec::new());
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0o600, 0, 0));
        assert_eq!(header.username().unwrap(), Some(""));
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (name, content)
    });
    entries.collect()
}

#[test]
fn an_archive_of_the_longest_names_can_be_unpacked_by_tar() {
    let (guard, site) = site();
    let (long, archive) = (format!("{}@example.com", "a/".repeat(31) + "a"), guard.path().join("users.tar"));
    let device = "d".repeat(32);
    let answer = import(
        &site,
        &format!("address,device\n{long},{device}\n"),
        &["--archive", archive.to_str().unwrap(), "--with-passwords"],
    );
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    if pki::have("tar") {
        let unpacked = guard.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        pki::succeed(&unpacked, "tar", &["xf", archive.to_str().unwrap()]);
        let name = long.replace('/', "%2f");
        let place = Path::new("handout").join(&name).join(&device).join(format!("{name}.p12"));
        assert_eq!(fs::read(unpacked.join(&place)).unwrap(), fs::read(site.join(&place)).unwrap());
        assert!(fs::read_to_string(unpacked.join("passwords.csv")).unwrap().contains(&long));
    }
}

#[test]
fn an_archive_is_refused_where_git_or_a_slip_of_the_hand_would_find_it() {
    let (guard, site) = site();
    fs::create_dir(site.join("golden")).unwrap();
    std::os::unix::fs::symlink(site.join("out"), guard.path().join("link")).unwrap();
    let before = snapshot(&site);
    for place in
        ["site/users.tar", "site/out/users.tar", "site/golden/users.tar", "site/state/users.tar", "link/users.tar"]
    {
        let place = guard.path().join(place);
        let answer = import(&site, THREE, &["--archive", place.to_str().unwrap()]);
        assert!(answer.exit_code == 4 && answer.err.contains("error[archive-place]"), "{place:?}: {answer:?}");
    }
    for place in ["users.csv", "nowhere/users.tar", "."] {
        let place = guard.path().join(place);
        let answer = import(&site, THREE, &["--archive", place.to_str().unwrap()]);
        assert!([2, 3].contains(&answer.exit_code), "{place:?}: {answer:?}");
    }
    assert!(snapshot(&site) == before, "refused before anything is issued");
    let within = site.join("handout/users.tar");
    assert_eq!(import(&site, THREE, &["--archive", within.to_str().unwrap()]).exit_code, 0);
    assert!(within.exists());
}

// Killed

/// Checks that what is recorded and what lies in files agree: each device's bundle opens with its password, of at most so many
/// devices; the trust list holds the twins of exactly the live certificates, and `out/` holds the list.
fn assert_usable(site: &Path, sample: usize) {
    let opened = store(site);
    let inventory = opened.inventory().unwrap();
    let live: Vec<_> = inventory.client_certificates.iter().filter(|certificate| certificate.is_live()).collect();
    let twins: BTreeSet<String> =
        live.iter().map(|certificate| opened.ledger().client_pem(&certificate.serial).unwrap().twin).collect();
    let list = opened.ledger().trust_list().unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let listed: BTreeSet<String> = list.split_inclusive(end).map(str::to_owned).collect();
    assert_eq!(listed, twins);
    assert_eq!(twins.len(), live.len());
    assert!(snapshot(&site.join("out")).values().any(|held| held == list.as_bytes()), "out/ has another list");
    let incoming = fs::read_dir(site.join("state/incoming")).map_or(0, Iterator::count);
    assert_eq!(incoming, 0, "what waits is recorded or set aside");
    let have = pki::have("openssl");
    for (number, certificate) in live.iter().enumerate() {
        let of = Passphrase::Device(&certificate.address, &certificate.device);
        assert!(opened.passphrase(of).unwrap().is_some(), "{certificate:?}");
        let directory = PathBuf::from(opened.handout_path(&certificate.address, &certificate.device).as_std_path());
        let bundle = directory.join(format!("{}.p12", certificate.address.path_component()));
        assert!(bundle.exists() && directory.join("site-ca.pem").exists(), "{certificate:?}");
        if have && number % live.len().div_ceil(sample) == 0 {
            let password = format!("file:{}", opened.passphrase_path(of));
            let arguments = ["pkcs12", "-in", bundle.to_str().unwrap(), "-passin", &password, "-nokeys", "-clcerts"];
            let text = pki::succeed(site, "openssl", &arguments);
            let given = postseal::pki::Certificate::from_pem(&text[text.find("-----BEGIN").unwrap()..]).unwrap();
            assert_eq!(given.fingerprint(), certificate.fingerprint, "the bundle is of another certificate");
        }
    }
}

/// More than a batch.
const MANY: usize = 100;

fn many() -> String {
    let line = |number| format!("user{number}@example.com\n");
    "address\n".to_owned() + &(0..MANY).map(line).collect::<String>()
}

fn start(site: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
    command.arg("--site").arg(site).args(["user", "import"]).arg(site.with_file_name("users.csv"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_run_that_is_killed_at_any_moment_is_resumed_by_the_next() {
    let (_guard, whole) = site();
    external(&whole);
    fs::write(whole.with_file_name("users.csv"), many()).unwrap();
    let begun = Instant::now();
    assert!(start(&whole).status().unwrap().success());
    let took = begun.elapsed();
    let mut resumed = 0;
    for part in [2, 4, 6, 8] {
        let (_guard, site) = site();
        external(&site);
        fs::write(site.with_file_name("users.csv"), many()).unwrap();
        let mut run = start(&site).spawn().unwrap();
        std::thread::sleep(took * part / 10);
        run.kill().unwrap();
        run.wait().unwrap();
        let answer = import(&site, &many(), &[]);
        let [made, there, bad] = counts(&answer);
        assert_eq!((answer.exit_code, made + there, bad), (0, MANY, 0), "{answer:?}");
        resumed += usize::from(there > 0 && made > 0);
        let counted = issued(&store(&site).inventory().unwrap());
        assert!(counted.len() == MANY + 1 && counted.values().all(|count| *count == 1), "{counted:?}");
        assert_usable(&site, 12);
    }
    println!("{resumed} of 4 runs were killed between the first and the last batch");
    assert_usable(&whole, MANY + 1);
}

#[test]
fn a_user_whose_files_have_no_place_stops_the_run_and_costs_nobody_a_certificate() {
    let (_guard, site) = site();
    external(&site);
    fs::write(site.join("handout/user90@example.com"), "mine").unwrap();
    let answer = import(&site, &many(), &["--jobs", "2"]);
    assert!(answer.exit_code == 3 && answer.err.contains("error[import-stopped]"), "{answer:?}");
    fs::remove_file(site.join("handout/user90@example.com")).unwrap();
    let again = import(&site, &many(), &[]);
    let [made, there, _] = counts(&again);
    assert!(again.exit_code == 0 && made + there == MANY, "{again:?}");
    assert!(issued(&store(&site).inventory().unwrap()).values().all(|count| *count == 1));
    assert_usable(&site, 10);
}

#[test]
fn a_bar_is_shown_to_a_person_only() {
    let (_guard, site) = site();
    fs::write(site.with_file_name("users.csv"), THREE).unwrap();
    if pki::have("script") {
        let run = format!("{:?}", start(&site)).replace('"', "'");
        let seen = pki::succeed(&site, "script", &["-qec", &run, "/dev/null"]);
        assert!(seen.contains("of 2 users"), "{seen:?}");
    }
    let more = "address\ndave@example.com\n";
    assert_eq!(import(&site, more, &[]).err, "");
}
