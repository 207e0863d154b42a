//! The store on a real disk: modes under any umask, several writers at once, runs that are killed.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the tests run themselves as other processes")]
#![expect(clippy::unwrap_used, reason = "what tests have in common is no test to clippy")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use postseal::inventory::{DkimAlgorithm, DkimKey};
use postseal::names::{DeviceName, Digest, MailAddress};
use postseal::plan::public_files;
use postseal::secret::Secret;
use postseal::store::files::write_atomic;
use postseal::store::ledger::{AuthorityKey, ClientIssuer, LedgerError, NewCertificate, NewClient};
use postseal::store::{Handout, Passphrase, SITE_CA, SiteDir, Store, StoreError, Writer, bundle_names};
use postseal::tree::{Class, Content, Entry, Part, Stored, Tree};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-09-01 12:00 UTC);

fn scratch() -> (tempfile::TempDir, SiteDir) {
    let guard = tempfile::tempdir().unwrap();
    let site = SiteDir::new(Utf8Path::from_path(guard.path()).unwrap().join("site"));
    (guard, site)
}

fn create(site: &SiteDir) -> Writer {
    Writer::create(site.clone(), std::thread::sleep).unwrap()
}

fn open(site: &SiteDir) -> Writer {
    Writer::open(site.clone(), std::thread::sleep).unwrap()
}

fn secret(text: &str) -> Secret {
    text.to_owned().into()
}

fn alice() -> MailAddress {
    "alice@example.com".parse().unwrap()
}

fn laptop() -> DeviceName {
    "laptop".parse().unwrap()
}

fn entry(path: &str, class: Class, content: Content) -> Entry {
    let part = Part::Smtpd;
    Entry { path: path.into(), owner: "root".into(), group: "wheel".into(), mode: 0o640, class, part, content }
}

fn tree(key: Digest) -> Tree {
    Tree::new(vec![
        entry("mail.example.com/root/etc/mail/smtpd.conf", Class::Public, Content::Text("listen\n".into())),
        entry("mail.example.com/root/etc/mail/users", Class::Private, Content::Text("alice\n".into())),
        entry("mail.example.com/root/etc/ssl/key", Class::Secret, Content::Stored(Stored::Key(key), Some(key))),
        entry("mail.example.com/root/var/dkim", Class::Public, Content::Directory),
    ])
}

fn fill(writer: &mut Writer) -> Digest {
    let key = writer.put_key(&secret("key")).unwrap();
    writer.put_passphrase(Passphrase::SiteCa, &secret("passphrase")).unwrap();
    writer.put_passphrase(Passphrase::Device(&alice(), &laptop()), &secret("password")).unwrap();
    writer.write_handout(&alice(), &laptop(), "alice.p12", &secret("p12")).unwrap();
    writer.transact(|tx| tx.add_user(&alice(), NOW)).unwrap();
    writer.refresh_derived(&tree(key)).unwrap();
    writer.site().write_golden(&public_files(&tree(key))).unwrap();
    writer.write_settings("").unwrap();
    key
}

/// Every file and directory of the site with its mode.
fn modes(directory: &Utf8Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(directory).unwrap().as_str().to_owned();
        found.insert(name, metadata.permissions().mode() & 0o7777);
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path).unwrap().map(|entry| Utf8PathBuf::from_path_buf(entry.unwrap().path()).unwrap()),
            );
        }
    }
    found
}

/// What this file's tests do when they run as another process: `part` names it, `site` is where.
#[test]
fn part_of_another_process() {
    let (Ok(part), Ok(site)) = (std::env::var("POSTSEAL_TEST_PART"), std::env::var("POSTSEAL_TEST_SITE")) else {
        return;
    };
    let site = SiteDir::new(site);
    match part.as_str() {
        "fill" => {
            fill(&mut create(&site));
        }
        "overflow" => {
            let error = write_atomic(&site.path("whole"), &vec![b'b'; 200_000], 0o600).unwrap_err().to_string();
            assert!(error.starts_with("could not write `whole`: "), "{error}");
        }
        "rewrite" => {
            let writer = open(&site);
            println!("\nready");
            for round in 0_u32.. {
                let content = vec![if round.is_multiple_of(2) { b'a' } else { b'b' }; 200_000];
                write_atomic(&site.path("state/whole"), &content, 0o600).unwrap();
                let key = writer.put_key(&Secret::new(round.to_be_bytes().to_vec())).unwrap();
                writer.write_out(&tree(key)).unwrap();
            }
        }
        user => open(&site).transact(|tx| tx.add_user(&user.parse().unwrap(), NOW)).unwrap(),
    }
}

fn another_process(site: &SiteDir, part: &str, umask: &str) -> Child {
    limited_process(site, part, umask, "")
}

/// `limit` is shell code that runs before; the site is the process's current directory.
fn limited_process(site: &SiteDir, part: &str, umask: &str, limit: &str) -> Child {
    fs::create_dir_all(site.root()).unwrap();
    Command::new("sh")
        .current_dir(site.root())
        .args(["-c", &format!("umask {umask}; {limit} exec \"$0\" --exact part_of_another_process --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env("POSTSEAL_TEST_PART", part)
        .env("POSTSEAL_TEST_SITE", ".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn modes_are_exact_under_any_umask() {
    let mut seen = Vec::new();
    for umask in ["000", "022", "077", "027"] {
        let (_guard, site) = scratch();
        assert!(another_process(&site, "fill", umask).wait().unwrap().success());
        seen.push(modes(site.root()));
    }
    let first = &seen[0];
    for (name, mode) in first {
        let expected = match name.as_str() {
            "state" | "handout" | "out" => 0o700,
            name if name.starts_with("state/") || name.starts_with("handout/") => {
                if *mode & 0o100 == 0 {
                    0o600
                } else {
                    0o700
                }
            }
            name if name.ends_with("/users") || name.ends_with("/ssl/key") => 0o600,
            _ if *mode & 0o100 == 0 => 0o644,
            _ => 0o755,
        };
        assert_eq!(*mode, expected, "{name}");
    }
    assert!(seen.iter().all(|modes| modes == first), "{seen:#?}");
    assert!(first.contains_key("state/passwords/alice@example.com/laptop.p12-password"), "{first:#?}");
}

#[test]
fn golden_holds_public_files_only() {
    let (_guard, site) = scratch();
    fill(&mut create(&site));
    let names: Vec<Utf8PathBuf> = site
        .golden()
        .unwrap()
        .unwrap()
        .into_iter()
        .filter(|(_, item)| item.content.is_some())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [".gitattributes", "mail.example.com/MANIFEST", "mail.example.com/root/etc/mail/smtpd.conf"]);
}

#[test]
fn eight_threads_and_eight_processes_add_sixteen_users() {
    let (_guard, site) = scratch();
    drop(create(&site));
    let processes: Vec<Child> =
        (0..8).map(|number| another_process(&site, &format!("process{number}@example.com"), "022")).collect();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let site = &site;
            scope.spawn(move || {
                let address = format!("thread{number}@example.com").parse().unwrap();
                open(site).transact(|tx| tx.add_user(&address, NOW)).unwrap();
            });
        }
    });
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(Store::open(site).unwrap().inventory().unwrap().users.len(), 16);
}

#[test]
fn a_killed_run_leaves_whole_files_and_nothing_else() {
    let (_guard, site) = scratch();
    drop(with_alice(&site));
    let key = Digest::of(b"key");
    for milliseconds in [1, 3, 9, 20, 33, 48, 70, 101] {
        let mut process = another_process(&site, "rewrite", "022");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        std::thread::sleep(Duration::from_millis(milliseconds));
        process.kill().unwrap();
        process.wait().unwrap();
        let writer = open(&site);
        let whole = fs::read(site.path("state/whole")).unwrap_or_else(|_| vec![b'a'; 200_000]);
        assert!(whole.len() == 200_000 && whole.iter().all(|byte| *byte == whole[0]));
        let left: Vec<String> = modes(site.root()).into_keys().filter(|name| name.contains(".postseal-")).collect();
        assert!(left.is_empty(), "{left:?}");
        let out = modes(site.root()).into_keys().filter(|name| name.starts_with("out/")).count();
        assert!([0, 11].contains(&out), "{out}");
        assert_eq!(writer.key(&key).unwrap().expose(), b"key");
    }
}

#[test]
fn a_write_that_fails_keeps_the_old_file() {
    let (_guard, site) = scratch();
    fs::create_dir(site.root()).unwrap();
    write_atomic(&site.path("whole"), b"old", 0o600).unwrap();
    let limit = "trap '' XFSZ; ulimit -f 8;";
    assert!(limited_process(&site, "overflow", "022", limit).wait().unwrap().success());
    assert_eq!(fs::read(site.path("whole")).unwrap(), b"old");
    assert_eq!(fs::read_dir(site.root()).unwrap().count(), 1);
}

#[test]
fn a_changed_key_is_noticed() {
    let (_guard, site) = scratch();
    let writer = create(&site);
    let key = writer.put_key(&secret("key")).unwrap();
    assert_eq!(writer.put_key(&secret("key")).unwrap(), key);
    write_atomic(&writer.key_path(&key), b"other", 0o600).unwrap();
    assert!(matches!(writer.key(&key), Err(StoreError::Tampered(_))));
    assert!(matches!(writer.put_key(&secret("key")), Err(StoreError::Tampered(_))));
    writer.remove_key(&key).unwrap();
    writer.remove_key(&key).unwrap();
}

#[test]
fn out_is_not_written_from_what_the_ledger_no_longer_says() {
    let (_guard, site) = scratch();
    let mut writer = create(&site);
    let credentials = Content::Stored(Stored::Credentials, writer.inventory().unwrap().credentials);
    let tree = Tree::new(vec![entry("mail/root/etc/credentials", Class::Secret, credentials)]);
    assert!(writer.write_out(&tree).unwrap());
    writer
        .transact(|tx| {
            tx.add_user(&alice(), NOW)?;
            tx.set_password(&alice(), &secret("$2b$hash"))
        })
        .unwrap();
    assert!(matches!(writer.write_out(&tree), Err(StoreError::Stale(_))));
}

#[test]
fn the_lock_is_stale_until_it_is_refreshed() {
    let (_guard, site) = scratch();
    let mut writer = create(&site);
    assert!(writer.refresh_lock().unwrap());
    assert!(!writer.refresh_lock().unwrap());
    let ca = NewCertificate {
        serial: "40000000000000000000000000000000".parse().unwrap(),
        pem: "-----BEGIN CERTIFICATE-----\n".into(),
        fingerprint: Digest::of(b"ca"),
        not_before: NOW,
        not_after: datetime!(2036-09-01 12:00 UTC),
    };
    writer.transact(|tx| tx.add_site_ca(&ca, &AuthorityKey::File(Digest::of(b"key")))).unwrap();
    assert!(writer.lock_is_stale().unwrap());
    assert!(writer.refresh_lock().unwrap());
    assert_eq!(site.locked_inventory().unwrap().unwrap(), writer.inventory().unwrap().public_part());
    write_atomic(&site.path("postseal.lock"), b"\xff", 0o644).unwrap();
    assert!(writer.lock_is_stale().unwrap());
}

#[test]
fn a_directory_that_holds_a_site_is_not_made_one_again() {
    let (_guard, site) = scratch();
    drop(create(&site));
    // What a run leaves that was killed before it recorded anything is no site yet.
    let mut writer = create(&site);
    let again = || Writer::create(site.clone(), |_| ()).unwrap_err();
    writer.transact(|tx| tx.add_user(&alice(), NOW)).unwrap();
    assert!(matches!(again(), StoreError::HoldsSite(path) if path.ends_with("state")));
    writer.write_settings("").unwrap();
    assert!(matches!(again(), StoreError::HoldsSite(path) if path.ends_with("postseal.toml")));
    assert!(matches!(writer.write_settings("other"), Err(StoreError::Exists(_))));
}

#[test]
fn git_never_sees_a_secret_and_keeps_its_own_lines() {
    let (_guard, site) = scratch();
    fs::create_dir(site.root()).unwrap();
    write_atomic(&site.path(".gitignore"), b"*.bak\n/out/", 0o644).unwrap();
    drop(create(&site));
    drop(open(&site));
    let text = fs::read_to_string(site.path(".gitignore")).unwrap();
    assert_eq!(text, "*.bak\n/out/\n/state/\n/handout/\n.postseal-*\n");
}

#[test]
fn a_state_directory_that_others_may_enter_is_refused() {
    let (_guard, site) = scratch();
    drop(create(&site));
    fs::set_permissions(site.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Store::open(site), Err(StoreError::Readable { mode: 0o755, .. })));
}

#[test]
fn without_a_ledger_the_message_says_how_to_get_one() {
    let (_guard, site) = scratch();
    let error = Store::open(site.clone()).unwrap_err().to_string();
    assert!(error.ends_with("or make a site: postseal init DOMAIN"), "{error}");
    assert!(!site.has_state().unwrap());
}

#[test]
fn a_slash_in_an_address_makes_no_directory() {
    let (_guard, site) = scratch();
    let writer = create(&site);
    let address: MailAddress = "a/b@example.com".parse().unwrap();
    let path = writer.write_handout(&address, &laptop(), "a.p12", &secret("p12")).unwrap();
    assert!(path.ends_with("handout/a%2fb@example.com/laptop/a.p12"), "{path}");
    for bad in ["", "..", "a/b", ".postseal-1-1.tmp"] {
        assert!(
            matches!(writer.write_handout(&address, &laptop(), bad, &secret("")), Err(StoreError::Outside(_))),
            "{bad}"
        );
    }
}

#[test]
fn debug_shows_no_secret() {
    let (_guard, site) = scratch();
    let mut writer = create(&site);
    fill(&mut writer);
    writer.transact(|tx| tx.set_password(&alice(), &secret("$2b$hash"))).unwrap();
    let refused: Result<(), LedgerError> = writer.transact(|tx| tx.set_password(&alice(), &secret("hunter2: x")));
    let shown = format!("{writer:?} {refused:?} {:?}", writer.ledger().credentials());
    assert!(!shown.contains("$2b$") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_password_counts_only_once_its_hash_is_recorded() {
    let (_guard, site) = scratch();
    let mut writer = create(&site);
    let hash = |text| postseal::password::hash(&secret(text), [7; 16]).unwrap();
    let kept = |site: &SiteDir| Store::open(site.clone()).unwrap().passphrase(Passphrase::Account(&alice())).unwrap();
    writer.transact(|tx| tx.add_user(&alice(), NOW)).unwrap();
    writer.put_pending_password(&alice(), &secret("the first one")).unwrap();
    writer.transact(|tx| tx.set_password(&alice(), &hash("the first one"))).unwrap();
    // Killed before it was settled: the next run does it.
    drop(writer);
    let writer = open(&site);
    assert_eq!(kept(&site), Some(secret("the first one")));
    // Killed before the hash was recorded: the old one stays.
    writer.put_pending_password(&alice(), &secret("the second one")).unwrap();
    drop(writer);
    drop(open(&site));
    assert_eq!(kept(&site), Some(secret("the first one")));
    assert!(!site.path("state/password.pending").exists());
}

#[test]
fn an_empty_ledger_beside_a_lock_is_no_new_site() {
    let (_guard, site) = scratch();
    let mut writer = create(&site);
    fill(&mut writer);
    drop(writer);
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(site.path(format!("state/ledger.sqlite{end}")));
    }
    fs::write(site.path("state/ledger.sqlite"), "").unwrap();
    let error = Store::open(site).unwrap_err().to_string();
    assert!(error.ends_with("bring state/ back from a backup"), "{error}");
}

fn unrecorded(writer: &Writer) -> Vec<Utf8PathBuf> {
    let (bob, phone) = ("b/b@example.com".parse().unwrap(), "phone".parse().unwrap());
    let key = writer.put_key(&secret("unrecorded")).unwrap();
    let mut made = vec![writer.key_path(&key)];
    for (address, device) in [(&bob, &laptop()), (&alice(), &phone)] {
        for of in [Passphrase::Account(address), Passphrase::Device(address, device)] {
            writer.put_passphrase(of, &secret("password")).unwrap();
            made.push(writer.passphrase_path(of));
        }
        for name in bundle_names(address).into_iter().chain([SITE_CA.to_owned()]) {
            made.push(writer.write_handout(address, device, &name, &secret("p12")).unwrap());
        }
    }
    // Alice has an account, so that her mail password is recorded.
    let kept = writer.passphrase_path(Passphrase::Account(&alice()));
    made.retain(|path| *path != kept);
    made
}

/// A site whose ledger knows a DKIM key and Alice's laptop.
fn with_alice(site: &SiteDir) -> (Writer, Vec<Utf8PathBuf>) {
    let mut writer = create(site);
    let key = writer.put_key(&secret("key")).unwrap();
    writer.put_passphrase(Passphrase::SiteCa, &secret("passphrase")).unwrap();
    writer.put_passphrase(Passphrase::Account(&alice()), &secret("password")).unwrap();
    writer.put_passphrase(Passphrase::Device(&alice(), &laptop()), &secret("password")).unwrap();
    let mut kept = vec![
        writer.key_path(&key),
        writer.passphrase_path(Passphrase::SiteCa),
        writer.passphrase_path(Passphrase::Account(&alice())),
        writer.passphrase_path(Passphrase::Device(&alice(), &laptop())),
    ];
    for name in bundle_names(&alice()).into_iter().chain([SITE_CA.to_owned()]) {
        kept.push(writer.write_handout(&alice(), &laptop(), &name, &secret("p12")).unwrap());
    }
    let certificate = NewCertificate {
        serial: "40000000000000000000000000000001".parse().unwrap(),
        pem: "certificate".into(),
        fingerprint: Digest::of(b"alice"),
        not_before: NOW,
        not_after: datetime!(2027-09-01 12:00 UTC),
    };
    let client = NewClient {
        address: alice(),
        device: laptop(),
        issuer: ClientIssuer::Own { issuing: "issuing".into(), twin: "twin".into(), crl: None },
    };
    let what = ("example.com".parse().unwrap(), DkimAlgorithm::Rsa);
    let key = DkimKey::new(what, "202609r".parse().unwrap(), ("MIIB".into(), key), NOW);
    writer
        .transact(|tx| {
            tx.add_dkim_key(&key)?;
            tx.add_user(&alice(), NOW)?;
            tx.add_client_certificate(&certificate, &client)
        })
        .unwrap();
    (writer, kept)
}

#[test]
fn what_was_made_and_never_recorded_is_swept_and_what_is_recorded_stays() {
    let (_guard, site) = scratch();
    let (writer, kept) = with_alice(&site);
    let swept = unrecorded(&writer);
    drop(writer);
    drop(open(&site));
    let left: Vec<_> = swept.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    let names: Vec<String> = modes(&site.path("handout")).into_keys().collect();
    let bundles = bundle_names(&alice()).map(|name| format!("alice@example.com/laptop/{name}"));
    let mut expected = vec![String::new(), "alice@example.com".into(), "alice@example.com/laptop".into()];
    expected.extend(bundles.into_iter().chain(["alice@example.com/laptop/site-ca.pem".into()]));
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_handout_that_was_moved_whole_stays_though_the_run_was_killed_before_it_cleared_up() {
    let (_guard, site) = scratch();
    let (writer, kept) = with_alice(&site);
    drop(writer);
    // The list of names goes before the directory that it lies in.
    let place = site.path("state/incoming/40000000000000000000000000000001");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(place.join("handout")).unwrap();
    drop(open(&site));
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    assert!(!place.exists());
}

#[test]
fn handouts_that_are_settled_together_come_to_their_places_as_one_does() {
    let (_guard, site) = scratch();
    let (writer, _) = with_alice(&site);
    let serial = "40000000000000000000000000000001".parse().unwrap();
    let [bundle, apple] = bundle_names(&alice());
    let handout = Handout {
        files: vec![(bundle.clone(), secret("new p12")), (SITE_CA.to_owned(), secret("new CA"))],
        p12_password: Some(secret("new p12 password")),
        mail_password: Some(secret("new mail password")),
    };
    let incoming = writer.incoming().in_bulk();
    incoming.put(&serial, &handout).unwrap();
    incoming.catch_up().unwrap();
    writer.settle_bulk([(&serial, &alice(), &laptop())].into_iter()).unwrap();
    let place = writer.handout_path(&alice(), &laptop());
    let held = |path: Utf8PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!([held(place.join(bundle)), held(place.join(SITE_CA))], ["new p12", "new CA"]);
    assert!(!place.join(apple).exists(), "an older form that came with an older certificate");
    for (of, text) in [
        (Passphrase::Device(&alice(), &laptop()), "new p12 password"),
        (Passphrase::Account(&alice()), "new mail password"),
    ] {
        assert_eq!(writer.passphrase(of).unwrap(), Some(secret(text)));
    }
    assert!(!site.path("state/incoming").join(serial.to_string()).exists());
    let modes = modes(&site.path("handout")).into_values().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(Vec::from_iter(modes), [0o600, 0o700]);
}

#[test]
fn what_a_person_put_there_is_never_swept() {
    let (_guard, site) = scratch();
    let (writer, _) = with_alice(&site);
    drop(writer);
    let mut own = vec![
        // The name of a key, but not of this one; an old copy of a key; notes.
        site.path("state/keys/0123456789abcdef.key"),
        site.path(format!("state/keys/{}.key.bak", Digest::of(b"own").short())),
        site.path("state/keys/README"),
        site.path("state/passwords/README"),
    ];
    for directory in
        ["state/passwords/bob@example.com", "handout/bob@example.com/phone", "handout/old", "handout/Bob@b.org"]
    {
        fs::create_dir_all(site.path(directory)).unwrap();
        own.push(site.path(directory).join("notes"));
    }
    // Beside something of somebody's own, the CA's certificate may be theirs, too.
    own.push(site.path("handout/bob@example.com/phone/site-ca.pem"));
    for path in &own {
        fs::write(path, "own").unwrap();
    }
    drop(open(&site));
    let gone: Vec<_> = own.iter().filter(|path| !path.exists()).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn what_is_swept_is_set_aside_and_said() {
    let (_guard, site) = scratch();
    let (writer, _) = with_alice(&site);
    let key = writer.put_key(&secret("unrecorded")).unwrap();
    let handout =
        writer.write_handout(&"bob@example.com".parse().unwrap(), &laptop(), SITE_CA, &secret("p12")).unwrap();
    let name = writer.key_path(&key).file_name().unwrap().to_owned();
    drop(writer);
    assert!(handout.exists());
    let (first, second) = (open(&site), site.path(format!("state/swept/keys/{name}")));
    assert_eq!(
        first.set_aside(),
        [second.clone(), site.path("state/swept/handout/bob@example.com/laptop/site-ca.pem")]
    );
    assert_eq!(fs::read(second).unwrap(), b"unrecorded");
    drop(first);
    assert!(open(&site).set_aside().is_empty());
}

#[test]
fn what_a_removed_person_had_is_destroyed() {
    let (_guard, site) = scratch();
    let (mut writer, _) = with_alice(&site);
    writer.transact(|tx| tx.remove_user(&alice(), NOW)).unwrap();
    drop(writer);
    assert!(open(&site).set_aside().is_empty());
    assert!(
        !site.path("handout/alice@example.com").exists() && !site.path("state/passwords/alice@example.com").exists()
    );
}

#[test]
fn a_ledger_that_lacks_what_the_lock_names_is_refused() {
    let (_guard, site) = scratch();
    let (writer, _) = with_alice(&site);
    writer.refresh_lock().unwrap();
    let key = writer.put_key(&secret("newer")).unwrap();
    drop(writer);
    let lock = site.path("postseal.lock");
    let newer = fs::read_to_string(&lock).unwrap().replace("202609r", "202610r");
    fs::write(&lock, newer).unwrap();
    let refused = Writer::open(site.clone(), |_| ()).unwrap_err().to_string();
    assert!(refused.contains("202610r._domainkey.example.com"), "{refused}");
    fs::remove_file(&lock).unwrap();
    assert!(open(&site).key(&key).is_err(), "it was set aside");
}

#[test]
fn a_link_in_place_of_what_is_swept_is_refused() {
    for name in ["state/keys", "state/passwords", "handout"] {
        let (_guard, site) = scratch();
        let (writer, _) = with_alice(&site);
        drop(writer);
        let elsewhere = site.root().with_file_name("elsewhere");
        fs::rename(site.path(name), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, site.path(name)).unwrap();
        let before = modes(&elsewhere);
        let refused = Writer::open(site.clone(), |_| ()).unwrap_err();
        assert!(matches!(refused, StoreError::NotADirectory(path) if path.ends_with(name)), "{name}");
        assert_eq!(modes(&elsewhere), before);
    }
}

#[test]
fn nothing_is_handed_out_or_kept_through_a_link() {
    let (_guard, site) = scratch();
    let (writer, _) = with_alice(&site);
    let elsewhere = site.root().with_file_name("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(site.path("handout/carol@example.com")).unwrap();
    for link in ["handout/bob@example.com", "handout/carol@example.com/laptop", "state/passwords/bob@example.com"] {
        std::os::unix::fs::symlink(&elsewhere, site.path(link)).unwrap();
    }
    let refused = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::NotADirectory(_))));
    for address in ["bob@example.com", "carol@example.com"] {
        let written = writer.write_handout(&address.parse().unwrap(), &laptop(), "a.p12", &secret("p12"));
        refused(written.map(|_| ()));
    }
    refused(writer.put_passphrase(Passphrase::Account(&"bob@example.com".parse().unwrap()), &secret("password")));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_ledger_behind_a_link_is_refused() {
    let (_guard, site) = scratch();
    drop(create(&site));
    let elsewhere = site.root().with_file_name("elsewhere");
    fs::rename(site.path("state/ledger.sqlite"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, site.path("state/ledger.sqlite")).unwrap();
    assert!(matches!(Store::open(site), Err(StoreError::NotAFile(path)) if path.ends_with("ledger.sqlite")));
}
