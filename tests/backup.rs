//! `backup`, `restore` and `user confirm`: all that a site is comes back, and nothing that was revoked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test spoils sites")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret as _;
use postseal::inventory::CertificateStatus;
use postseal::store::{SiteDir, Store};
use tar::{EntryType, Header};

use surroundings::{Answer, Surroundings, postseal, snapshot};

/// A site, where its backup goes, the key that opens it, and another place.
struct Scene {
    _guard: tempfile::TempDir,
    site: PathBuf,
    backup: PathBuf,
    identity: PathBuf,
    recipient: String,
    place: PathBuf,
}

fn scene() -> Scene {
    let (guard, site) = surroundings::site();
    let around = guard.path().to_owned();
    let key = age::x25519::Identity::generate();
    let identity = around.join("identity");
    fs::write(&identity, format!("# made for a test\n{}\n", key.to_string().expose_secret())).unwrap();
    let recipient = key.to_public().to_string();
    Scene { site, backup: around.join("site.age"), identity, recipient, place: around.join("again"), _guard: guard }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Scene {
    fn back_up(&self) -> Answer {
        let answer = postseal(&self.site, ["backup", text(&self.backup), "--recipient", &self.recipient]);
        assert_eq!((answer.exit_code, answer.err.as_str()), (0, ""), "{answer:?}");
        answer
    }

    fn restore(&self, more: &[&str]) -> Answer {
        let arguments = [&["restore", text(&self.backup), "--identity", text(&self.identity)], more].concat();
        postseal(&self.place, arguments)
    }

    fn restored(&self, more: &[&str]) -> Answer {
        let answer = self.restore(more);
        assert_eq!(answer.exit_code, 0, "{answer:?}");
        assert_in_order(&self.place);
        answer
    }

    /// A host on which the site's files are installed.
    fn host(&self) -> PathBuf {
        let root = self.site.parent().unwrap().join("root");
        let _ = fs::remove_dir_all(&root);
        copy(&self.site.join("out/mail.example.com/root"), &root);
        root
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn must(site: &Path, arguments: &[&str]) -> String {
    let answer = postseal(site, arguments);
    assert_eq!(answer.exit_code, 0, "{arguments:?}: {answer:?}");
    answer.out
}

fn assert_in_order(site: &Path) {
    let answer = postseal(site, ["fsck"]);
    assert_eq!((answer.exit_code, answer.out.lines().count()), (0, 1), "{answer:?}");
}

fn store(site: &Path) -> Store {
    Store::open(SiteDir::new(camino::Utf8Path::from_path(site).unwrap())).unwrap()
}

/// Returns whose certificates have a status.
fn having(site: &Path, status: CertificateStatus) -> BTreeSet<String> {
    let inventory = store(site).inventory().unwrap();
    let certificates = inventory.client_certificates.iter().filter(|one| one.status == status);
    certificates.map(|one| format!("{} {}", one.address.local_part(), one.device)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn all_that_a_site_is_comes_back_as_it_was() {
    let scene = scene();
    must(&scene.site, &["bless"]);
    fs::create_dir_all(scene.site.join("templates/smtpd")).unwrap();
    fs::write(scene.site.join("templates/README~"), "an editor's own").unwrap();
    fs::create_dir_all(scene.site.join("domains")).unwrap();
    fs::write(scene.site.join("domains/example.net.toml"), "spf = \"fail\"\n").unwrap();
    let long = format!("{}@example.com", "a/".repeat(31) + "a");
    must(&scene.site, &["user", "add", &long, "--device", &"d".repeat(32)]);
    must(&scene.site, &["render"]);
    let before = snapshot(&scene.site);
    let answer = scene.back_up();
    assert!(answer.out.contains("bring it back: postseal restore "), "{answer:?}");
    assert!(snapshot(&scene.site) == before, "a backup changes nothing");
    assert_eq!(fs::metadata(&scene.backup).unwrap().permissions().mode() & 0o7777, 0o600);
    scene.restored(&[]);
    let below = |site: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let found = snapshot(site).into_iter().filter(|(path, _)| path.is_file());
        let found = found.map(|(path, content)| (path.strip_prefix(site).unwrap().to_owned(), content));
        found.filter(|(path, _)| path != Path::new("state/ledger.sqlite") && !path.starts_with("out")).collect()
    };
    assert_eq!(below(&scene.place), below(&scene.site));
    let (old, new) = (store(&scene.site).inventory().unwrap(), store(&scene.place).inventory().unwrap());
    assert_eq!(
        (old.users, old.dkim_keys, old.server_certificates),
        (new.users, new.dkim_keys, new.server_certificates)
    );
    assert_eq!(old.credentials, new.credentials);
    let serials = |inventory: &[postseal::inventory::ClientCertificate]| -> Vec<_> {
        inventory.iter().map(|one| one.serial).collect()
    };
    assert_eq!(serials(&old.client_certificates), serials(&new.client_certificates));
}

#[test]
fn without_a_host_everybody_is_held_until_confirmed_and_the_site_then_issues_and_revokes() {
    let scene = scene();
    must(&scene.site, &["user", "add", "bob@example.com"]);
    must(&scene.site, &["user", "add", "bob@example.com", "--device", "phone"]);
    scene.back_up();
    // What happens after the backup is unknown to it.
    must(&scene.site, &["user", "remove", "bob@example.com"]);
    let answer = scene.restored(&[]);
    assert!(answer.out.contains("nobody is admitted by the next apply") && answer.out.contains("user confirm ADDRESS"));
    let all = ["alice default", "bob default", "bob phone"];
    assert_eq!(having(&scene.place, CertificateStatus::Held), set(&all));
    let listed =
        || fs::read_to_string(scene.place.join("out/mail.example.com/root/etc/mail/postseal/clients.pem")).unwrap();
    let placeholder = store(&scene.place).ledger().placeholder().unwrap().unwrap();
    assert_eq!(listed(), placeholder);

    let answer = must(&scene.place, &["user", "confirm", "bob@example.com", "--device", "phone"]);
    assert!(answer.contains("confirmed bob@example.com for `phone`") && answer.contains("still held: 2"), "{answer}");
    assert_eq!(having(&scene.place, CertificateStatus::Live), set(&["bob phone"]));
    assert_in_order(&scene.place);
    let answer = must(&scene.place, &["user", "confirm", "bob@example.com", "--device", "phone"]);
    assert!(answer.contains("nothing of theirs is held"), "{answer}");
    must(&scene.place, &["user", "confirm", "--all"]);
    assert_eq!(having(&scene.place, CertificateStatus::Live), set(&all));
    assert_eq!(listed().matches("BEGIN").count(), 3);

    must(&scene.place, &["user", "add", "carol@example.com"]);
    must(&scene.place, &["user", "remove", "alice@example.com"]);
    assert_eq!(having(&scene.place, CertificateStatus::Revoked), set(&["alice default"]));
    assert_in_order(&scene.place);
    let events = store(&scene.place).ledger().events().unwrap();
    let told = |what: &str| events.iter().filter(|event| event.what == what).count();
    assert_eq!((told("restored"), told("certificate-confirmed")), (1, 3));
}

#[test]
fn whom_the_host_admits_stays_and_nobody_who_was_revoked_comes_back() {
    let scene = scene();
    must(&scene.site, &["user", "add", "bob@example.com"]);
    must(&scene.site, &["user", "add", "dave@example.com"]);
    let old_password = fs::read(scene.site.join("state/passwords/alice@example.com/password")).unwrap();
    scene.back_up();
    must(&scene.site, &["user", "remove", "bob@example.com"]);
    must(&scene.site, &["user", "add", "carol@example.com"]);
    must(&scene.site, &["user", "passwd", "alice@example.com"]);
    let root = scene.host();
    let answer = scene.restored(&["--root", text(&root), "--host", "mail.example.com"]);
    assert_eq!(having(&scene.place, CertificateStatus::Live), set(&["alice default", "dave default"]));
    assert_eq!(having(&scene.place, CertificateStatus::Held), set(&["bob default"]));
    for told in [
        "2 of 3 certificates",
        "1 certificates on the host are newer",
        "a login that the backup does not, and the next apply ends it: carol@example.com",
        "held until you confirm them: bob@example.com",
    ] {
        assert!(answer.out.contains(told), "{told}: {answer:?}");
    }
    let line = |site: &Path, who: &str| {
        let table = store(site).ledger().credentials().unwrap();
        table.expose_str().unwrap().lines().find(|line| line.starts_with(who)).map(str::to_owned)
    };
    assert_eq!(line(&scene.place, "alice"), line(&scene.site, "alice"), "the newer password counts");
    assert_eq!(line(&scene.place, "bob"), None);
    assert!(line(&scene.place, "dave").is_some());
    let passwords = scene.place.join("state/passwords");
    assert!(
        !passwords.join("alice@example.com/password").exists() && !passwords.join("bob@example.com/password").exists()
    );
    assert!(passwords.join("dave@example.com/password").exists() && !old_password.is_empty());
}

#[test]
fn a_host_that_does_not_tell_whom_it_admits_is_refused() {
    let scene = scene();
    scene.back_up();
    for (spoil, code) in [
        (
            (|root| fs::remove_file(root.join("etc/mail/postseal/clients.pem")).unwrap()) as fn(&Path),
            "host-list-missing",
        ),
        (|root| fs::remove_file(root.join("etc/mail/postseal/credentials")).unwrap(), "host-list-missing"),
        (
            |root| {
                let list = root.join("etc/mail/postseal/clients.pem");
                fs::rename(&list, root.join("elsewhere")).unwrap();
                std::os::unix::fs::symlink(root.join("elsewhere"), list).unwrap();
            },
            "in-the-way",
        ),
    ] {
        let root = scene.host();
        spoil(&root);
        let answer = scene.restore(&["--root", text(&root)]);
        assert_eq!(answer.exit_code, 2, "{answer:?}");
        assert!(answer.err.contains(&format!("error[{code}]")), "{answer:?}");
        assert_nothing_left(&scene);
    }
}

/// Nothing of a restore that was refused stays.
fn assert_nothing_left(scene: &Scene) {
    let names: BTreeSet<_> = fs::read_dir(scene.place.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "root")
        .collect();
    assert!(names.is_subset(&set(&["site", "site.age", "identity", "passphrase"])), "{names:?}");
}

#[test]
fn a_selector_of_which_the_backup_knows_nothing_is_not_used_again() {
    let scene = scene();
    scene.back_up();
    let add = |site: &Path| {
        let settings = site.join("postseal.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, text.replace("[aliases]", "[[domain]]\nname = \"example.net\"\n[aliases]")).unwrap();
        must(site, &["render"]);
        let inventory = store(site).inventory().unwrap();
        let keys = inventory.dkim_keys.iter().filter(|key| key.domain.as_str() == "example.net");
        keys.map(|key| key.selector.to_string()).collect::<BTreeSet<_>>()
    };
    let lost = add(&scene.site);
    scene.restored(&[]);
    let new = add(&scene.place);
    assert!(!lost.is_empty() && lost.len() == new.len() && lost.is_disjoint(&new), "{lost:?} {new:?}");
}

#[test]
fn a_passphrase_is_as_good_as_a_key() {
    let scene = scene();
    let passphrase = scene.site.parent().unwrap().join("passphrase");
    fs::write(&passphrase, "correct horse battery\n").unwrap();
    must(&scene.site, &["backup", text(&scene.backup), "--passphrase-file", text(&passphrase)]);
    for (given, code) in [
        (vec![], "backup-key"),
        (vec!["--identity", text(&scene.identity)], "backup-key"),
        (vec!["--passphrase-file", text(&scene.identity)], "secret-not-a-line"),
        (vec!["--passphrase-file", "/nowhere"], "no-such-file"),
    ] {
        let answer = postseal(&scene.place, [vec!["restore", text(&scene.backup)], given].concat());
        assert!(answer.exit_code == 2 && answer.err.contains(code), "{answer:?}");
    }
    fs::write(&passphrase, "incorrect horse").unwrap();
    let restore = ["restore", text(&scene.backup), "--passphrase-file", text(&passphrase)];
    let answer = postseal(&scene.place, restore);
    assert!(answer.exit_code == 2 && answer.err.contains("error[backup-key]"), "{answer:?}");
    assert_nothing_left(&scene);
    fs::write(&passphrase, "correct horse battery").unwrap();
    must(&scene.place, &restore);
    assert_in_order(&scene.place);
}

#[test]
fn on_a_terminal_the_passphrase_is_asked_twice() {
    let scene = scene();
    let typing = |typed: &[&'static str], arguments: &[&str], site: &Path| {
        let surroundings = Surroundings::default();
        // One answer too many: while answers are left, somebody is there.
        *surroundings.typed.lock().unwrap() = [typed, &["never asked for"]].concat();
        surroundings.run(site, arguments.to_vec())
    };
    let backup = ["backup", text(&scene.backup)];
    for (typed, code) in [(&["one thing", "another"][..], "password-mismatch"), (&["", ""], "empty-secret")] {
        let answer = typing(typed, &backup, &scene.site);
        assert!(answer.exit_code == 2 && answer.err.contains(code) && !scene.backup.exists(), "{answer:?}");
    }
    assert_eq!(typing(&["the same thing", "the same thing"], &backup, &scene.site).exit_code, 0);
    let answer = typing(&["the same thing"], &["restore", text(&scene.backup)], &scene.place);
    assert_eq!(answer.exit_code, 0, "{answer:?}");
}

#[test]
fn a_backup_is_never_written_over_something_nor_in_the_clear() {
    let scene = scene();
    for (more, code) in [
        (vec![], "backup-passphrase"),
        (vec!["--recipient", "age1nobody"], "backup-recipient"),
        (vec!["--recipient", scene.recipient.as_str(), "--recipient", "x"], "backup-recipient"),
    ] {
        let answer = postseal(&scene.site, [vec!["backup", text(&scene.backup)], more].concat());
        assert!(answer.exit_code == 2 && answer.err.contains(&format!("error[{code}]")), "{answer:?}");
        assert_nothing_left(&scene);
    }
    let secret = fs::read_to_string(&scene.identity).unwrap().lines().last().unwrap().to_owned();
    let answer = postseal(&scene.site, ["backup", text(&scene.backup), "--recipient", &secret]);
    assert!(answer.exit_code == 2 && !answer.err.contains(&secret[10..]), "{answer:?}");

    fs::write(&scene.backup, "precious").unwrap();
    let answer = postseal(&scene.site, ["backup", text(&scene.backup), "--recipient", &scene.recipient]);
    assert_eq!(answer.exit_code, 2, "{answer:?}");
    assert_eq!(fs::read(&scene.backup).unwrap(), b"precious");
    let inside = scene.site.join("state/site.age");
    let answer = postseal(&scene.site, ["backup", text(&inside), "--recipient", &scene.recipient]);
    assert!(answer.exit_code == 2 && answer.err.contains("error[file-name]") && !inside.exists(), "{answer:?}");
}

#[test]
fn what_a_killed_backup_left_is_removed_by_the_next_and_what_one_is_at_work_on_is_not() {
    let scene = scene();
    let around = scene.site.parent().unwrap();
    let (dead, alive) = (around.join(".postseal-new-1-0.tmp"), around.join(".postseal-new-2-0.tmp"));
    fs::write(&dead, "half").unwrap();
    let at_work = fs::File::create(&alive).unwrap();
    at_work.try_lock().unwrap();
    scene.back_up();
    assert!(!dead.exists() && alive.exists());
}

#[test]
fn a_place_that_holds_part_of_a_site_is_refused() {
    let scene = scene();
    scene.back_up();
    for (part, is_directory) in [("postseal.toml", false), ("state", true), ("golden", true), ("templates", true)] {
        fs::create_dir(&scene.place).unwrap();
        let path = scene.place.join(part);
        if is_directory {
            fs::create_dir(&path).unwrap();
        } else {
            fs::write(&path, "").unwrap();
        }
        let answer = scene.restore(&[]);
        assert!(answer.exit_code == 2 && answer.err.contains("error[site]"), "{part}: {answer:?}");
        assert_eq!(fs::read_dir(&scene.place).unwrap().count(), 1);
        fs::remove_dir_all(&scene.place).unwrap();
    }
    fs::create_dir(&scene.place).unwrap();
    fs::write(scene.place.join("NOTES"), "mine").unwrap();
    scene.restored(&[]);
    assert_eq!(fs::read(scene.place.join("NOTES")).unwrap(), b"mine");
}

#[test]
fn a_backup_that_was_cut_or_changed_anywhere_is_refused() {
    let scene = scene();
    scene.back_up();
    let whole = fs::read(&scene.backup).unwrap();
    let cuts = [0, 1, 20, 100, 200, 70_000, whole.len() / 2, whole.len() - 65_536, whole.len() - 1];
    let changes = [0, 30, 120, 250, 66_000, whole.len() - 20];
    for at in cuts {
        fs::write(&scene.backup, &whole[..at]).unwrap();
        let answer = scene.restore(&[]);
        assert!(answer.exit_code == 2 && answer.err.contains("= help: "), "cut at {at}: {answer:?}");
        assert_nothing_left(&scene);
    }
    for at in changes {
        let mut other = whole.clone();
        other[at] ^= 1;
        fs::write(&scene.backup, other).unwrap();
        let answer = scene.restore(&[]);
        assert!(answer.exit_code == 2 && answer.err.contains("= help: "), "changed at {at}: {answer:?}");
        assert_nothing_left(&scene);
    }
    fs::write(&scene.backup, [whole.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(scene.restore(&[]).exit_code, 2);
}

/// One entry of an archive: path, kind, target of a link, content.
type Entry = (&'static str, EntryType, &'static str, Vec<u8>);

fn file(path: &'static str, content: &[u8]) -> Entry {
    (path, EntryType::Regular, "", content.to_vec())
}

impl Scene {
    /// Encrypts whatever entries as if they were a backup.
    fn forge(&self, entries: &[Entry]) {
        let recipient: age::x25519::Recipient = self.recipient.parse().unwrap();
        let sealed = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
        let mut stream = sealed.wrap_output(fs::File::create(&self.backup).unwrap()).unwrap();
        for (path, kind, target, content) in entries {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o777);
            header.set_cksum();
            stream.write_all(header.as_bytes()).unwrap();
            stream.write_all(content).unwrap();
            stream.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
        }
        stream.write_all(&[0; 1024]).unwrap();
        stream.finish().unwrap();
    }

    /// Returns what a true backup holds.
    fn opened(&self) -> Vec<u8> {
        let key = fs::read_to_string(&self.identity).unwrap();
        let key: age::x25519::Identity = key.lines().last().unwrap().parse().unwrap();
        let opened = age::Decryptor::new(fs::File::open(&self.backup).unwrap()).unwrap();
        let mut stream = opened.decrypt(std::iter::once(&key as &dyn age::Identity)).unwrap();
        let mut archive = Vec::new();
        stream.read_to_end(&mut archive).unwrap();
        archive
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
fn a_hostile_archive_is_refused_and_writes_nothing() {
    let scene = scene();
    scene.back_up();
    let content = |name: &str| {
        let mut archive = tar::Archive::new(std::io::Cursor::new(scene.opened()));
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let mark = file("postseal-backup", b"1 2026-11-24T12:00:00Z\n");
    let settings = file("postseal.toml", &content("postseal.toml"));
    let ledger = file("state/ledger.sqlite", &content("state/ledger.sqlite"));
    let of = |kind, path, target| (path, kind, target, Vec::new());
    let twice = file("state/a", b"");
    let cases: Vec<Vec<Entry>> = vec![
        vec![file("../evil", b"x")],
        vec![file("/tmp/evil", b"x")],
        vec![file("state/../../evil", b"x")],
        vec![file("evil", b"x")],
        vec![file("state/./evil", b"x")],
        vec![file("state//evil", b"x")],
        vec![file("out/evil", b"x")],
        vec![file("state/ledger.sqlite-wal", b"x")],
        vec![file("state/lock", b"x")],
        vec![file("state/new\nline", b"x")],
        vec![file("state", b"x")],
        vec![of(EntryType::Symlink, "state/keys", "/etc")],
        vec![of(EntryType::Symlink, "state/keys", "/tmp"), file("state/keys/evil", b"x")],
        vec![of(EntryType::Link, "state/link", "/etc/passwd")],
        vec![of(EntryType::Char, "state/null", "")],
        vec![of(EntryType::Block, "state/disk", "")],
        vec![of(EntryType::Fifo, "state/pipe", "")],
        vec![of(EntryType::GNUSparse, "state/sparse", "")],
        vec![of(EntryType::XHeader, "state/x", "")],
        vec![of(EntryType::XGlobalHeader, "state/x", "")],
        vec![(("././@LongLink"), EntryType::GNULongName, "", vec![b'a'; 5000]), twice.clone()],
        vec![("././@LongLink", EntryType::GNULongName, "", b"../evil\0".to_vec()), twice.clone()],
        vec![twice.clone(), twice.clone()],
        vec![twice.clone(), file("state/a/b", b"")],
        vec![file("state/a/b", b""), twice.clone()],
        vec![file("postseal.toml", b"")],
    ];
    let around = snapshot(scene.place.parent().unwrap()).len();
    let mut forged = Vec::new();
    for case in cases {
        // In the beginning, and when all else is there.
        forged.push([vec![mark.clone()], case.clone(), vec![settings.clone(), ledger.clone()]].concat());
        forged.push([vec![mark.clone(), settings.clone(), ledger.clone()], case].concat());
    }
    forged.extend([
        vec![],
        vec![settings.clone(), ledger.clone()],
        vec![mark.clone()],
        vec![mark.clone(), settings.clone()],
        vec![mark.clone(), ledger.clone()],
        vec![file("postseal-backup", b"2 2026-11-24T12:00:00Z\n"), settings.clone(), ledger.clone()],
        vec![file("postseal-backup", b"1 yesterday\n"), settings.clone(), ledger.clone()],
        // Without its keys.
        vec![mark.clone(), settings.clone(), ledger.clone()],
        vec![mark.clone(), settings.clone(), file("state/ledger.sqlite", b"no database")],
        vec![mark.clone(), settings, file("state/ledger.sqlite", b"")],
        vec![mark, file("postseal.toml", b"no = settings"), ledger],
    ]);
    for entries in forged {
        let names: Vec<_> = entries.iter().map(|(path, kind, ..)| (path, kind)).collect();
        scene.forge(&entries);
        let answer = scene.restore(&[]);
        assert!([2, 3].contains(&answer.exit_code) && answer.err.contains("= help: "), "{names:?}: {answer:?}");
        assert!(answer.exit_code == 2 || answer.err.contains("error[ledger]"), "{names:?}: {answer:?}");
        assert_eq!(snapshot(scene.place.parent().unwrap()).len(), around, "{names:?}");
    }
    assert!(!Path::new("/tmp/evil").exists());
}

#[test]
fn a_size_that_no_site_has_is_refused_before_it_is_written() {
    let scene = scene();
    scene.forge(&[file("postseal-backup", b"1 2026-11-24T12:00:00Z\n"), file("state/big", b"x")]);
    let mut archive = scene.opened();
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&archive[1024..1536]);
    header.set_size(9 << 30);
    header.set_cksum();
    archive[1024..1536].copy_from_slice(header.as_bytes());
    let recipient: age::x25519::Recipient = scene.recipient.parse().unwrap();
    let sealed = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut stream = sealed.wrap_output(fs::File::create(&scene.backup).unwrap()).unwrap();
    stream.write_all(&archive).unwrap();
    stream.finish().unwrap();
    let answer = scene.restore(&[]);
    assert!(answer.exit_code == 2 && answer.err.contains("holds more than any site has"), "{answer:?}");
}

#[test]
fn a_backup_of_a_site_without_one_of_its_keys_is_refused() {
    let scene = scene();
    let key = fs::read_dir(scene.site.join("state/keys")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(key).unwrap();
    scene.back_up();
    let answer = scene.restore(&[]);
    assert_ne!(answer.exit_code, 0, "{answer:?}");
    assert_nothing_left(&scene);
}

#[test]
fn other_programs_open_a_backup() {
    let scene = scene();
    scene.back_up();
    let archive = scene.site.parent().unwrap().join("archive.tar");
    // The `age` command where there is one, or else the library that reads the same format.
    let by_age = Command::new("age").args(["-d", "-i", text(&scene.identity), text(&scene.backup)]).output();
    // Where there is no such command, the library that reads the same format stands in for it.
    let opened = by_age.map_or_else(|_| scene.opened(), |done| done.stdout);
    fs::write(&archive, opened).unwrap();
    let listed = Command::new("tar").args(["-tf", text(&archive)]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in ["postseal-backup", "postseal.toml", "state/ledger.sqlite", "state/ca.passphrase"] {
        assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
    }
    assert!(!listed.lines().any(|line| line.starts_with("out/")) && !listed.contains(".postseal-"), "{listed}");
}
